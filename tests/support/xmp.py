"""XMP written by hand, and what exiftool reads of it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape


def make_xmp(
    rating: str = "", keywords: Sequence[str] = (), caption: str = "", extra: str = ""
) -> bytes:
    """Make a packet as Adobe's programs write it; `extra` are more properties."""
    items = "".join(f"<rdf:li>{escape(keyword)}</rdf:li>" for keyword in keywords)
    subject = f"<dc:subject><rdf:Bag>{items}</rdf:Bag></dc:subject>" if keywords else ""
    text = f'<rdf:Alt><rdf:li xml:lang="x-default">{escape(caption)}</rdf:li></rdf:Alt>'
    description = f"<dc:description>{text}</dc:description>" if caption else ""
    attribute = f' xmp:Rating="{rating}"' if rating else ""
    return f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <!-- a comment -->
  <rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:my="https://example.org/my/"{attribute}>
   {subject}{description}{extra}
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>""".encode()


def read_with_exiftool(path: Path) -> dict[str, Any]:
    """Read the XMP of a file with exiftool; empty where that is not installed."""
    tool = shutil.which("exiftool")
    if tool is None:
        return {}
    command = [tool, "-j", "-G", "-n", "-XMP:all", str(path)]
    answer = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    read: dict[str, Any] = json.loads(answer)[0]
    del read["SourceFile"]
    return read
