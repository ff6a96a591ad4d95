"""What rows must have in common before they are pooled or compared: images, protocol's settings, start, numerics.

Names alone do not tell: two folders of images are both called "folder", and a protocol's settings may have changed.
"""

from collections.abc import Collection, Iterator, Sequence
from itertools import combinations
from typing import Any

import pandas as pd

from sslticket.report import schema

TARGETED = [kind for kind, keys in schema.KINDS.items() if "protocol" in keys]
"""Kinds of rows that were trained under a protocol."""
PLACE = ["protocol", "target", "model", "within"]
"""The names of where something was measured."""
CONDITIONS = {
    "protocol_hash": "settings {}",
    "start": "start {}",
    "data_hash": "training images {}",
    "eval_hash": "evaluation images {}",
}
"""What must be the same behind those names, and the words for it where it is not."""
OWN_TRAINING = "search"
"""The protocol of rows about a search's own dense training."""
_SEARCH = ["model", "objective", "source", "subset", "subset_by", "recipe"]
_LEAST = 4  # digits of a hash that a name shows


def completed(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame of `table.rows` with what older rows leave unsaid.

    `within` is "" for all layers, `head` "new", `start` "0" for scores and "k" for analyses, `numerics` the precision,
    which is all that they tell of them. `images` is the `source_hash`, "" where no row of the ticket tells it and
    nothing speaks against that it is that of all others.
    """
    heads, starts = (frame[key].astype(object) for key in ("head", "start"))
    within, numerics = (frame[key].astype(object) for key in ("within", "numerics"))
    return frame.assign(
        within=within.where(within.notna(), ""),
        head=heads.where(heads.notna(), schema.OLD_HEAD),
        numerics=numerics.where(numerics.notna(), frame["precision"]),
        start=starts.where(starts.notna(), frame["kind"].map(schema.OLD_STARTS)),
        images=_images(frame),
    )


def _images(frame: pd.DataFrame) -> "pd.Series[Any]":
    """Of each row, what stands for the whole set of images that its ticket was found on."""
    told = frame["source_hash"].astype(object)
    known = frame[told.notna()].drop_duplicates("ticket_hash").set_index("ticket_hash")["source_hash"]
    told = told.where(told.notna(), frame["ticket_hash"].map(known))
    unsaid = told.isna()
    if unsaid.any():
        told = told.where(~unsaid, _by_search(frame[unsaid]).reindex(frame.index))
    return told.where(told.notna(), "")


def _by_search(old: pd.DataFrame) -> "pd.Series[Any]":
    """Of rows without `source_hash`: the images that the search itself saw, where recipes show that they differ.

    Searches of one recipe saw the same images if their seeds draw nothing: no subset, no shuffled or hidden labels.
    Where a seed draws, only two searches of one seed show it.
    """
    own = old[~old["kind"].isin(TARGETED)]  # in other rows, `data_hash` is of the protocol's images
    if own.empty:
        return pd.Series(dtype=object)
    seen = own.drop_duplicates("ticket_hash").set_index("ticket_hash")["data_hash"]
    by = [*_SEARCH, "search_seed"]
    differ = own.groupby(by)["data_hash"].transform("nunique") > 1
    whole = ~own["settings"].map(_draws) & (own["subset"] == 1) & ~own["objective"].str.endswith("-shuffled")
    differ |= whole & (own[whole].groupby(_SEARCH)["data_hash"].transform("nunique").reindex(own.index) > 1)
    mixed = own.loc[differ, _SEARCH].drop_duplicates().assign(mixed=True)
    is_mixed = old[_SEARCH].merge(mixed, on=_SEARCH, how="left")["mixed"].notna().to_numpy()
    return old["ticket_hash"].map(seen).where(is_mixed)


def _draws(settings: Any) -> bool:
    """Whether the seed of a search decides which labels its images have."""
    return not isinstance(settings, dict) or settings.get("labels", 1) != 1 or settings.get("shuffle_labels", 0) != 0


def apart(frame: pd.DataFrame) -> "pd.Series[Any]":
    """What tells panels of one PLACE apart, in words: "start k", "settings 3f2a"; "" where nothing has to.

    Args:
        frame: with `completed`'s columns and `tickets`.
    """
    words: dict[Any, str] = {}
    for _, own in frame[frame["kind"].isin(TARGETED)].groupby(["kind", *PLACE]):
        known = settled(own)
        found = list(known.itertuples(index=False, name=None))
        told = dict(_told(set(found)))
        words |= zip(own.index, [told[each] for each in found], strict=True)
    return pd.Series([words.get(row, "") for row in frame.index], frame.index, object)


def settled(own: pd.DataFrame) -> pd.DataFrame:
    """The CONDITIONS of rows of one PLACE; what older rows do not tell is that of the others, if nothing forbids it.

    It is a value of its own where others have several, or where rows of one series tell it and others do not.
    """
    control = own["control"].astype(object).where(own["control"].notna(), "")
    series = own["tickets"].mask(control.isin(schema.SHARED_CONTROLS), "") + "," + control + "," + own["head"]
    found = {}
    for key in CONDITIONS:
        values = own[key].astype(object).where(own[key].notna(), "")
        if key == "data_hash":
            # Of a search's own training it is that of a subset or of shuffled labels, which the seed draws.
            values = values.where(own["protocol"] != OWN_TRAINING, own["images"])
        others = set(values) - {""}
        both = (values == "").groupby(series).nunique().max() > 1
        found[key] = values.replace("", next(iter(others))) if len(others) == 1 and not both else values
    return pd.DataFrame(found)


def _told(found: Collection[tuple[str, ...]]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Each combination of CONDITIONS with the fewest words that tell it from the others."""
    ordered = sorted(found)
    if len(ordered) == 1:
        yield ordered[0], ""
        return
    columns = [brief({each[place] for each in ordered}) for place in range(len(CONDITIONS))]
    for count in range(1, len(CONDITIONS) + 1):
        for chosen in combinations(range(len(CONDITIONS)), count):
            if len({tuple(each[place] for place in chosen) for each in ordered}) == len(ordered):
                words = list(CONDITIONS.values())
                for each in ordered:
                    yield each, ", ".join(words[place].format(columns[place][each[place]]) for place in chosen)
                return


def brief(values: Collection[str]) -> dict[str, str]:
    """Each value by as few of its first signs as tell it from the others; "unknown" for one that is not told."""
    held = sorted(value for value in values if value)
    length = next(
        size for size in range(_LEAST, 2 + max([_LEAST, *map(len, held)])) if len({v[:size] for v in held}) == len(held)
    )
    return {value: value[:length] or "unknown" for value in values}


def several(frame: pd.DataFrame, by: Sequence[str], key: str) -> "pd.Series[bool]":
    """Of each row, whether those that are alike in `by` differ in `key`; a value that is missing is one, too."""
    counts = frame.assign(value=frame[key].astype(object).where(frame[key].notna(), "")).groupby(list(by))["value"]
    return counts.transform("nunique") > 1
