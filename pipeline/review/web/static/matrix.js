// Matrices of 3 x 3 numbers, row by row, that map points of a plane.

export const identity = () => [1, 0, 0, 0, 1, 0, 0, 0, 1];

export function multiply(a, b) {
  return Array.from({ length: 9 }, (_, index) => {
    const row = 3 * Math.floor(index / 3);
    const column = index % 3;
    return a[row] * b[column] + a[row + 1] * b[column + 3] + a[row + 2] * b[column + 6];
  });
}

/** The inverse up to a factor, which does not matter for points; the identity if there is none. */
export function invert([a, b, c, d, e, f, g, h, i]) {
  const determinant = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g);
  if (!Number.isFinite(determinant) || Math.abs(determinant) < 1e-12) return identity();
  return [
    e * i - f * h, c * h - b * i, b * f - c * e,
    f * g - d * i, a * i - c * g, c * d - a * f,
    d * h - e * g, b * g - a * h, a * e - b * d,
  ].map((value) => value / determinant);
}

export function mapPoint(m, [x, y]) {
  const w = m[6] * x + m[7] * y + m[8];
  return [(m[0] * x + m[1] * y + m[2]) / w, (m[3] * x + m[4] * y + m[5]) / w];
}

/** How much longer short distances at a point are after the map. */
export function measureScale(m, [x, y]) {
  const at = mapPoint(m, [x, y]);
  const right = mapPoint(m, [x + 1, y]);
  const below = mapPoint(m, [x, y + 1]);
  const area =
    (right[0] - at[0]) * (below[1] - at[1]) - (right[1] - at[1]) * (below[0] - at[0]);
  return Math.sqrt(Math.abs(area)) || 1;
}

/** The transform of CSS that maps in this way, with its origin at the upper left corner. */
export function makeCss([a, b, c, d, e, f, g, h, i]) {
  return `matrix3d(${[a, d, 0, g, b, e, 0, h, 0, 0, 1, 0, c, f, 0, i].join(",")})`;
}
