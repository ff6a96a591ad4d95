"""The rows of `gpu.py` as Markdown, for docs/gpu.md."""

from collections.abc import Sequence
from typing import Any

_HEAD = (
    "| step | images | images/s | ms | of the ceiling | kernels | waits | peak | plain torch | ratio |",
    "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The machine, its ceilings, the table of steps, and what failed or was skipped.

    Raises:
        ValueError: if no row tells the machine.
    """
    machine = next((row for row in rows if row["kind"] == "machine"), None)
    if machine is None:
        raise ValueError("no row tells the machine; give the file that benchmarks/gpu.py has written")
    versions = ", ".join(f"{library} {number}" for library, number in machine["versions"].items())
    memory = f", {machine['memory'] / 1e9:.0f} GB" if machine["memory"] else ""
    lines = [f"{machine['name']}{memory}; {versions}; commit {machine['commit'] or 'unknown'}."]
    if machine["small"]:
        lines.append("Small form: these numbers mean nothing.")
    ceilings = [f"{row['name']} {row['rate'] / 1e12:,.1f} TFLOP/s" for row in rows if row["kind"] == "ceiling"]
    lines += ["", f"Ceilings: {'; '.join(ceilings)}."]
    for row in (row for row in rows if row["kind"] == "tests" and "ended" in row):
        counts = ", ".join(f"{row[how]} {how}" for how in ("passed", "failed", "error", "skipped"))
        lines += ["", f"Tests: {counts}; {row['ended']}.", *(f"- `{odd}`" for odd in row["odd"])]
    lines += ["", *_HEAD, *(_line(row) for row in rows if row["kind"] == "step" and "ms" in row)]
    others = [row for row in rows if row["kind"] == "loader" and "images" in row]
    lines += [f"\n{row['name']}: {row['images']:,.0f} images/s." for row in others]
    without = [row for row in rows if {"failed", "skipped"} & row.keys() and "ended" not in row]
    odd = [f"- {row['name']}: {row.get('failed') or row['skipped']}" for row in without]
    return "\n".join(lines + (["", "Not measured:", "", *odd] if odd else []))


def _line(row: dict[str, Any]) -> str:
    ratio = f"{row['ratio']:.2f} ({row['lowest']:.2f} to {row['highest']:.2f})" if "ratio" in row else ""
    cells = (
        row["name"],
        f"{row['batch']:,} of {row['size']}",
        f"{row['images']:,.0f}",
        f"{row['ms']:.2f}",
        f"{row['share']:.0%}" if "share" in row else "",
        f"{row['kernels']:,.0f}" if "kernels" in row else "",
        f"{row['waits']:.1f}" if "waits" in row else "",
        f"{row['peak'] / 1e9:.1f} GB" if "peak" in row else "",
        f"{row['plain_images']:,.0f} images/s" if "plain_images" in row else "",
        ratio,
    )
    return f"| {' | '.join(cells)} |"
