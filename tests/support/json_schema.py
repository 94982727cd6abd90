"""Check documents by JSON Schema, as far as the OpenAPI document of the HTTP API uses it."""

from __future__ import annotations

from typing import Any

TYPES: dict[str, type[Any] | tuple[type[Any], ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}
KEYWORDS = {
    *("type", "properties", "required", "items", "enum", "anyOf", "$ref", "minimum", "maximum"),
    *("minItems", "maxItems", "maxLength", "additionalProperties", "format"),
}


def find_faults(
    value: Any,  # noqa: ANN401 - JSON
    schema: dict[str, Any],
    root: dict[str, Any],
    at: str = "$",
) -> list[str]:
    """List where a document is not as its schema says; `root` is where references begin."""
    assert schema.keys() <= KEYWORDS, schema.keys() - KEYWORDS
    if "$ref" in schema:
        target: Any = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        return find_faults(value, target, root, at)
    if "anyOf" in schema:
        options = [find_faults(value, option, root, at) for option in schema["anyOf"]]
        return [] if not all(options) else [f"{at} is none of {len(options)} forms: {options}"]
    faults = []
    if "type" in schema:
        is_bool = isinstance(value, bool) and schema["type"] != "boolean"
        if is_bool or not isinstance(value, TYPES[schema["type"]]):
            return [f"{at} is no {schema['type']}: {value!r}"]
    if "enum" in schema and value not in schema["enum"]:
        faults.append(f"{at} is none of {schema['enum']}: {value!r}")
    if isinstance(value, dict):
        faults += [
            f"{at} has no {name}" for name in schema.get("required", ()) if name not in value
        ]
        for name, item in value.items():
            rule = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
            faults += find_faults(item, rule, root, f"{at}.{name}") if rule else []
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            faults.append(f"{at} has {len(value)} items")
        for number, item in enumerate(value):
            faults += find_faults(item, schema.get("items", {}), root, f"{at}[{number}]")
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not schema.get("minimum", value) <= value <= schema.get("maximum", value):
            faults.append(f"{at} is out of its range: {value}")
    if isinstance(value, str) and len(value) > schema.get("maxLength", len(value)):
        faults.append(f"{at} is too long")
    return faults
