"""Tables of what was measured and how: searches and their cost, every mean, and the commands behind them."""

import math
from typing import Any

import pandas as pd

from sslticket.escaping import html as escaped
from sslticket.escaping import html_json
from sslticket.report import html, naming, notes, statistics, text
from sslticket.report.chart import brief, duration
from sslticket.report.content import Content, Panel
from sslticket.report.searches import COSTS, WORDS
from sslticket.report.statistics import PANEL

_ALIKE = ["kind", "command", "commit", "data_hash", "device", "numerics", "versions"]
_MEAN = [*PANEL, "series", "density"]

_OF = {"classes": "the classes of ", "random": "the images, whatever they show, of "}


def searches(content: Content) -> str:
    """What each search cost, and how its own measures went; "" without level rows."""
    body = []
    for (run, _), own in content.levels.groupby(["run", "tickets"]):
        last = own.iloc[-1]
        body.append(
            [
                str(run),
                f"{_share(last)} of {_OF.get(last['subset_by'], '')}{last['source']}",
                str(last["search_seed"]),
                str(own["level"].max()),
                _count(last["cost_forward_images"]),
                _count(last["cost_samples"]),
                f"{last['cost_steps']:,.0f}",
                duration(last["cost_seconds"]),
                f"{own['bad_images'].max():.0f}",
                _change(own),
            ]
        )
    head = ["Run", "Found on", "Seed", "Levels", "Images through the network", "Source images", "Steps", "Time"]
    head += ["Bad images", "First → last training"]
    caption = "What each search cost, and how well its networks learned their own task"
    return html.card(html.table(caption, head, body, words=(0, 1, 9)), "cost") if body else ""


def _share(row: "pd.Series[Any]") -> str:
    count = naming.shots(row["settings"])
    return f"{count} images a class" if count else f"{100 * row['subset']:g}%"


def _count(value: float) -> str:
    return text.MISSING if math.isnan(value) else f"{value:,.0f}"


def _change(own: pd.DataFrame) -> str:
    """How the search's own measures went, "with 100% → 25% of the weights: rotation accuracy 0.93 → 0.71"."""
    trained = own[own["trained"].notna()]  # the row of level 0 tells of the few steps up to W_k
    if trained.empty:
        return ""
    first, last = trained.iloc[0], trained.iloc[-1]
    before, after = ({"loss": row["loss"], **row["metrics"]} for row in (first, last))
    ends = " → ".join(dict.fromkeys(f"{text.percent(row['trained'])}%" for row in (first, last)))
    held = [name for name in before if name in after and before[name] is not None and after[name] is not None]
    if not held:
        return ""
    return f"with {ends} of the weights: " + ", ".join(
        f"{name} {before[name]:.3g} → {after[name]:.3g}" for name in held
    )


def bargain(panel: Panel) -> str:
    """What the ringed tickets cost, and how many times less than the supervised ones; "" where no row tells."""
    own = panel.common[panel.common["control"] == "ticket"] if len(panel.common) else panel.common
    own = own.drop_duplicates("tickets").merge(panel.costs, on=["model", "tickets", "density"])
    if own.empty:
        return ""
    labels = own[own["objective"] == "supervised"].sort_values(["subset", "series"], ascending=[False, True])
    # Older rows tell source images only, whose number of views differs between objectives.
    unit = "forward_images" if own["cost_forward_images"].notna().all() else "samples"
    told = [each for each in COSTS if own[f"cost_{each}"].notna().any()]
    body = []
    for row in own.to_dict("records"):
        line = [row["tickets"], *(_cost(each, row[f"cost_{each}"]) for each in told)]
        if len(labels):
            line.append(_times(labels.iloc[0][f"cost_{unit}"], row[f"cost_{unit}"]))
        body.append(line)
    head = ["Tickets", *(_capital(WORDS[each]) for each in told)]
    head += [f"{_capital(WORDS[unit])}, {labels.iloc[0]['tickets']} ÷ this"] if len(labels) else []
    caption = f"What the tickets of {text.percent(panel.density)}%, ringed in the chart of cost, took to find"
    return html.details("Cost of the headline's tickets", html.table(caption, head, body))


def _cost(unit: str, value: float) -> str:
    if math.isnan(value):
        return text.MISSING
    return duration(value) if unit == "seconds" else brief(value)


def _capital(words: str) -> str:
    return words[0].upper() + words[1:]


def _times(reference: float, own: float) -> str:
    return f"{reference / own:.3g}\N{MULTIPLICATION SIGN}" if own else text.MISSING


def numbers(content: Content) -> str:
    """The table of all means, which the page's script sorts and filters; "" without scores."""
    if content.summary.empty:
        return ""
    head = [
        *(
            "Series",
            "Model",
            "Protocol",
            "Weights left",
            "Top-1, %",
            "± sd",
            "95% interval",
            "Top-5, %",
            "n",
            "Trainings",
        )
    ]
    texts = {0, 1, 2}
    kinds = ["" if place in texts else ' class="num"' for place in range(len(head))]
    columns = "".join(f'<th scope="col"{kind}>{name}</th>' for kind, name in zip(kinds, head, strict=True))
    lines = "".join(map(_line, range(len(content.summary)), content.summary.to_dict("records")))
    tools = (
        '<div class="tools"><label hidden>Filter <input type="search" id="filter" placeholder="words, such as '
        'random 1.56%"></label><span class="soft" id="count" role="status"></span></div>'
    )
    caption = "Mean top-1 and top-5 of every series at every density; n counts searches, and of controls the draws"
    return html.card(
        f'{tools}<div class="scroll tall" role="region" tabindex="0" aria-label="{caption}">'
        f'<table class="words" id="numbers"><caption><span>{caption}</span></caption><thead><tr>{columns}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def _line(place: int, row: dict[Any, Any]) -> str:
    sd = text.MISSING if math.isnan(row["top1_sd"]) else f"{100 * row['top1_sd']:.2f}"
    ends = text.MISSING if math.isnan(row["low"]) else f"{100 * row['low']:.2f} to {100 * row['high']:.2f}"
    numbers = [f"{text.percent(row['density'])}%", f"{100 * row['top1']:.2f}", sd, ends, f"{100 * row['top5']:.2f}"]
    numbers += [str(row["n"]), str(row["trainings"])]
    cells = "".join(f'<td class="num">{each}</td>' for each in numbers)
    network = text.network(row["model"], row["within"])
    return (
        f'<tr data-mean="{place}"><th scope="row">{escaped(row["series"])}</th><td>{escaped(network)}</td>'
        f"<td>{escaped(row['protocol'] + text.beside(row['apart']))}</td>{cells}</tr>"
    )


def data(content: Content) -> str:
    """The trainings that each mean is of, as JSON that no value can end early."""
    scores = statistics.trainings(content.named)
    makings: dict[tuple[str, ...], int] = {}
    means: dict[tuple[Any, ...], list[list[Any]]] = {}
    for row in scores.sort_values(["search_seed", "seed"]).to_dict("records"):
        how = tuple(str(row[key]) for key in ("run", "command", "commit", "data_hash"))
        search = row["search_seed"] if row["unit"].startswith("search") else row["replicate"]
        search = None if pd.isna(search) else int(search)
        training = [search, int(row["seed"]), row["top1"], makings.setdefault(how, len(makings))]
        means.setdefault(tuple(row[key] for key in _MEAN), []).append(training)
    ordered = [means[tuple(row)] for row in content.summary[_MEAN].itertuples(index=False)]
    return html_json({"made": list(makings), "means": ordered})


def made(content: Content) -> str:
    """For each run, the commands that made its rows and what they ran on; rows made alike are told together."""
    frame = content.named
    frame = frame.assign(versions=frame["versions"].map(_listed))
    runs = []
    for run, own in frame.groupby("run"):
        parts = []
        for key, alike in own.groupby(_ALIKE, sort=False):
            kind, *values = map(str, key)
            versions = values.pop()
            what = notes.KINDS[kind]
            if len(protocols := alike["protocol"].dropna().unique()):
                what += f" ({', '.join(protocols)})"
            facts = dict(zip(["Command", "Commit", "Data", "Device", "Numerics"], values, strict=True))
            facts |= {"Versions": versions, "Rows": str(len(alike))}
            items = "".join(f"<dt>{name}</dt><dd><code>{escaped(fact)}</code></dd>" for name, fact in facts.items())
            parts.append(f"<h3>{escaped(what)}</h3><dl>{items}</dl>")
        runs.append(html.details(str(run), "".join(parts)))
    return html.card("".join(runs))


def _listed(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))


def footer(content: Content) -> str:
    """What the page was drawn from."""
    frame = content.named
    return f"Drawn by sslticket from {len(frame):,} rows of {frame['run'].nunique():,} runs."
