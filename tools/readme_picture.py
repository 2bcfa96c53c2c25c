"""Draw the picture in README.md from the engine: ``python tools/readme_picture.py`` writes book/figures/readme.svg."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mmcore.viz import palette, render, svg  # noqa: E402

PICTURE = ROOT / "book" / "figures" / "readme.svg"


def picture() -> str:
    """Return the figure's last frame as an SVG that stands alone, light and dark."""
    shown = render(
        "ch02.buddy", {"pages": 1024, "script": "alloc 0; alloc 2; alloc 0; alloc 4; free 0"}
    )
    frame = shown.frames[-1]
    text = svg.finish(str(frame.svg), "readme", "Buddy allocator: split and merge", frame.alt)
    at = text.index(">") + 1
    ground = "rect.mm-ground{fill:#FFFFFF}@media (prefers-color-scheme:dark){rect.mm-ground{fill:#14181E}}"
    style = f"<style>{ground}{palette.standalone_css()}</style>"
    return (
        text[:at]
        + style
        + '<rect class="mm-ground" x="-2" y="-2" width="100%" height="100%"/>'
        + text[at:]
        + "\n"
    )


def main() -> None:
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(picture(), encoding="utf-8")
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
