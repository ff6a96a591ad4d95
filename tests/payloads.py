"""Words that a stranger may write where a name is expected, each meant to act somewhere, and what a page holds."""

from html.parser import HTMLParser

PAYLOADS = (
    '"); window.pwned = 1; __import__("os").system("true"); ("',
    "'); raise SystemExit(7) #",
    "\\",
    "<script>window.pwned = 1</script>",
    '"><img src=x onerror=window.pwned=1>',
    "</script><script>window.pwned=1</script><!--",
    "</title><svg onload=window.pwned=1>",
    "[click](javascript:window.pwned=1) ![p](http://evil.example/p.png)",
    "http://evil.example www.evil.example a@evil.example <http://evil.example>",
    "```\n# not code\n<b>live</b>\n```",
    "a | b | c\n|---|---|\n# heading",
    "---\nlicense: mit\nmalicious: true\n---",
    "x: !!python/object/apply:os.system ['true']",
    "\x1b]0;title\x07\x1b[2J\x1b[31mred\x9b5A",
    "\u202egnp.exe\u2066\u200b\ufeff\u2028next\x85\x00",
    "\udcff\ud800",
    "\\input{/etc/passwd} \\end{document} $x^{$ }}{ % ~ _ &",
    "$\\frac{$ $\\undefined$",
    "=HYPERLINK(1) +1 -1 @x",
    "_hidden",
    "; rm -rf / $(touch pwned) `touch pwned` 'x",
    "../../etc/passwd",
    "/absolute/NUL",
    "con.txt",
    "n" * 300,
    "{braces} {0} %s $title ${title}",
    "",
)


class Seen(HTMLParser):
    """Collects tags, attributes and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data
