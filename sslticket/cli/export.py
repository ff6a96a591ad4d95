"""`sslticket export`."""

import argparse
from pathlib import Path

from sslticket.cli import flags
from sslticket.escaping import block

TICKET = "a .safetensors file that a search wrote, an exported folder, or hf://USER/NAME[@REVISION][/PATH]"


def add(commands: "argparse._SubParsersAction[flags.Parser]") -> None:
    """The command."""
    parser = commands.add_parser(
        "export",
        help="write a ticket for the Hugging Face Hub, or as a state dict",
        description="Write a folder for the Hugging Face Hub: the ticket, its weights as a plain state dict, a model\n"
        "card with accuracy against density, and config.json. Where OUT ends in .safetensors, .pt or .pth, write a\n"
        "state dict with the mask applied. Nothing that is there is replaced.",
    )
    parser.add_argument("ticket", metavar="TICKET", help=TICKET)
    parser.add_argument("out", metavar="OUT", type=Path, help="a new folder, or a file's name with such an ending")
    parser.add_argument(
        "--format",
        choices=("plain", "prune"),
        help="of a state dict: W_k x mask, or <weight>_orig and <weight>_mask as torch.nn.utils.prune has them [plain]",
    )
    parser.add_argument(
        "--data-licence", metavar="TEXT", help="of the images, for the card, such as 'CC BY 4.0' [the catalogue's]"
    )
    parser.set_defaults(command=_export)


def _export(given: argparse.Namespace) -> None:
    from sslticket.sharing.export import export

    print(block(export(given.ticket, given.out, layout=given.format, licence=given.data_licence)))
