"""The notebook in examples/ runs from its first cell to its last."""

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

NOTEBOOK = Path(__file__).parents[1] / "examples" / "digits_tour.ipynb"


@pytest.mark.filterwarnings("ignore:::jupyter_client", "ignore:::zmq", "ignore:::nbclient", "ignore:.*proactor.*")
def test_the_notebook_goes_from_images_to_a_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONWARNINGS", "default")
    monkeypatch.setenv("TQDM_DISABLE", "")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    outputs = {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}
    shown = "".join(str(each) for cell in outputs.values() for each in cell)
    assert "Error" not in shown
    assert "Traceback" not in shown
    assert any("image/png" in each.get("data", {}) for cell in outputs.values() for each in cell)
    assert (tmp_path / "report.html").exists()
    (run,) = (tmp_path / "runs").iterdir()
    assert len(list((run / "tickets").glob("level-*.safetensors"))) == 6
