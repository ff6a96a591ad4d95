"""Searches: how tickets are found."""

from sslticket.registry import Registry

SEARCHES = Registry[type](
    "search",
    {
        "ContinuousSparsification": "sslticket.search.learned:ContinuousSparsification",
        "EdgePopup": "sslticket.search.learned:EdgePopup",
        "IMP": "sslticket.search.imp:IMP",
        "MaskTraining": "sslticket.search.learned:MaskTraining",
        "OneShot": "sslticket.search.oneshot:OneShot",
        "RigL": "sslticket.search.dynamic:RigL",
        "SET": "sslticket.search.dynamic:SET",
        "StochasticSparsification": "sslticket.search.learned:StochasticSparsification",
    },
    base="sslticket.search.base:Search",
)
"""The searches that recipes and --search may name."""
