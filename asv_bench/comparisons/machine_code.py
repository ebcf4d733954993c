"""The loops of a compiled module, in its machine code, by llvm-objdump or objdump."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

# A jump of x86 or of AArch64, and where it leads.
_JUMP = re.compile(r"(?:j\w+|b|b\.\w+|cbn?z|tbn?z)\s+(?:\S+, )*?(?:0x)?([0-9a-f]+)$")


def functions(path: str | Path, objdump: str = "objdump") -> Iterator[tuple[str, list]]:
    """Yield (name, [(address, instruction)]) of an object file."""
    listing = subprocess.run(
        [objdump, "-d", "--no-show-raw-insn", str(path)], capture_output=True, text=True, check=True
    ).stdout
    for part in re.split(r"\n\n(?=[0-9a-f]+ <)", listing):
        head = re.match(r"[0-9a-f]+ <(.+)>:\n", part)
        if head:
            lines = re.findall(r"^\s*([0-9a-f]+):\s+(.+)$", part, re.MULTILINE)
            # Without names of what is jumped to, and comments.
            yield (
                head[1],
                [
                    (int(address, 16), re.sub(r"\s+(?:#\s|//|<).*", "", text))
                    for address, text in lines
                ],
            )


def innermost_loops(code: list[tuple[int, str]]) -> Iterator[list[str]]:
    """Yield the instructions of each loop that has no loop inside."""
    place = {address: i for i, (address, _) in enumerate(code)}
    backward = []
    for i, (address, text) in enumerate(code):
        jump = _JUMP.match(text)
        if jump and int(jump[1], 16) <= address and int(jump[1], 16) in place:
            start = place[int(jump[1], 16)]
            # What lies behind a return is moved out of the way: a jump from there closes no loop.
            if not any(text.startswith("ret") for _, text in code[start:i]):
                backward.append((start, i))
    for start, end in backward:
        if not any(start <= s and e <= end and (s, e) != (start, end) for s, e in backward):
            yield [text for _, text in code[start : end + 1]]


def turns(code: list[tuple[int, str]], without: str, most: int = 64) -> Iterator[list[str]]:
    """Yield, of each loop of at most so many instructions, the longest way round.

    What is in no line may be in the way: the compiler puts a branch's other side elsewhere.
    Instructions that `without` is a part of are not on it.
    """
    place = {address: i for i, (address, _) in enumerate(code)}
    following: list[list[int]] = []
    for i, (_, text) in enumerate(code):
        jump = _JUMP.match(text)
        to = [place[int(jump[1], 16)]] if jump and int(jump[1], 16) in place else []
        ends = text.startswith(("ret", "jmp", "b\t", "b "))
        following.append(to if ends or i + 1 == len(code) else [i + 1, *to])
    known = set()
    for head in {to for i, all_ in enumerate(following) for to in all_ if to <= i}:
        longest: list[int] = []
        ways = [[head]]
        while ways:
            way = ways.pop()
            if without in code[way[-1]][1] or len(way) > most:
                continue
            for to in following[way[-1]]:
                if to == head and len(way) > len(longest):
                    longest = way
                elif to not in way:
                    ways.append([*way, to])
        if longest and frozenset(longest) not in known:
            known.add(frozenset(longest))
            yield [code[i][1] for i in longest]
