import pytest

from sslticket.report import stats, text
from sslticket.results import table


@pytest.fixture
def summary(runs, score):
    return lambda *rows: stats.summarize(table.read_rows([runs(*rows)]))


def test_text_for_the_terminal(summary, score):
    found = summary(
        score(level=0, density=1.0, top1=0.99),
        score(level=0, density=1.0, top1=0.98, search_seed=1),
        score(level=5, density=0.03125, top1=0.95),
        score(level=5, density=0.03125, top1=0.97, search_seed=1),
        score(level=5, density=0.03125, top1=0.7, control="random"),
    )
    assert text.terminal_tables(found).splitlines() == [
        "Top-1 in % of conv on digits (protocol digits): mean ± standard deviation over searches",
        "",
        "density  rotnet (n=2)  random (n=1)",
        "-------  ------------  ------------",
        "   100%    98.5 ± 0.7             \N{EN DASH}",
        "  3.12%    96.0 ± 1.4          70.0",
    ]


def test_the_latex_table_is_whole_and_sets_names_as_they_are(summary, score):
    found = summary(
        score(top1=0.981, model="conv_3", objective=r"a&b\x{50%}"),
        score(top1=0.979, model="conv_3", objective=r"a&b\x{50%}", search_seed=1),
        score(level=0, density=1.0, model="conv_3", control="random"),
    )
    assert text.latex_tables(found).splitlines() == [
        r"% \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        r"\caption{Top-1 in \% of conv\_3 on digits (protocol digits): mean $\pm$ standard deviation over searches.}",
        r"\label{tab:conv-3-digits-digits}",
        r"\begin{tabular}{rrr}",
        r"\toprule",
        r"Weights left & a\&b\textbackslash{}x\{50\%\} (n=2) & random (n=1) \\",
        r"\midrule",
        r"100\,\% & -- & 90.0 \\",
        r"25\,\% & 98.0 $\pm$ 0.1 & -- \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]


@pytest.mark.parametrize(("value", "words"), [(0.0131, "+1.3"), (-0.058, "\N{MINUS SIGN}5.8"), (0.0, "+0.0")])
def test_differences_are_told_in_points_with_a_sign(value, words):
    assert text.format_points(value) == words
