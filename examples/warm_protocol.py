"""A protocol from outside the package: digits, with a warm-up of the learning rate.

Its rows are under the name `digits-warm-<hash of all settings>`: a protocol that is changed has another name, so no
two settings share a row. Settings that a protocol does not name are the data set's own.

Run       sslticket evaluate runs/<key> --protocol examples/warm_protocol.py:WARM --controls random
          sslticket report runs/<key>
Python    evaluate_tickets("runs/<key>", protocol=WARM)
"""

from sslticket import SGD, TrainConfig
from sslticket.evaluation.protocols import Protocol

WARM = Protocol(
    name="digits-warm",
    dataset="digits",
    training=TrainConfig(length="40it", batch_size=128, optimizer=SGD(lr=0.1), warmup="8it", drops=("32it",)),
    seeds=(0, 1),
)
