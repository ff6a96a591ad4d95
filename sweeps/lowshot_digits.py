"""Low-shot tickets in minutes: a small network on 8x8 digits, with class labels and with RotNet's rotations.

Finds     how dense a winning ticket must be when it is found on a tenth of the images, on a third and on all of them.
Source    Finding Winning Tickets with Limited (or No) Supervision, section 4.2, in small.
Run       sslticket sweep lowshot_digits
"""

from sslticket import Evaluate, Sweep

sweep = Sweep(
    title="Low-shot tickets on digits",
    recipes=["supervised_digits", "rotnet_digits"],
    settings={"levels": 4},
    grid={"subset": [0.1, 0.3, 1.0]},
    seeds=[0, 1],
    evaluate=[Evaluate(protocols=["digits-demo"], controls=["random"], levels="0 2 4", seeds=[0])],
)
