"""Generates labelled question pairs in English and Spanish from the frames in `frames/`.

A pair of label 1 is one question in two wordings. A pair of label 0 looks alike and asks for
something else: another action, another attribute, swapped roles, the opposite direction, another
bound, a negated state, a condition on one side only. Frames of some blocks are held out of training
and measure the verifier on wordings that it has not seen.
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data import Pair

FRAMES_DIR = Path(__file__).with_name("frames")
LANGUAGES = ("en", "es")

COUNTS = {
    "actions": 8000,
    "compared": 2200,
    "roles": 4500,
    "directions": 4500,
    "comparators": 2200,
    "states": 2400,
    "qualified": 2400,
    "meanings": 2600,
    "freshness": 1600,
    "opposites": 2600,
    "units": 1500,
}
"""Pairs to draw of each kind and language. Duplicates are dropped, so fewer come out."""

HOSTS = 9000
"""Pairs that are made from given pairs of label 1 by adding a filler or a condition."""

HELD_OUT_OF = 8
"""One block of frames in so many is held out of training."""

SHARE_OF_POSITIVES = 0.5

SHARE_OF_CONDITIONS = 0.12
"""Share of the pairs that get a condition on one side or on both."""

SLOT = re.compile(r"\{([a-z_]+?)(2?)\}")


@dataclass(frozen=True)
class Frames:
    """The frames of one language: sections of blocks of lines."""

    language: str
    sections: dict[str, list[list[str]]] = field(repr=False)

    @classmethod
    def load(cls, language: str) -> Frames:
        """Reads `frames/<language>.txt`."""
        sections: dict[str, list[list[str]]] = {}
        blocks: list[list[str]] = []
        for line in (FRAMES_DIR / f"{language}.txt").read_text(encoding="utf-8").splitlines():
            if line.startswith("#"):
                continue
            if line.startswith("["):
                blocks = sections.setdefault(line.strip("[]"), [[]])
            elif line:
                blocks[-1].append(line)
            elif blocks and blocks[-1]:
                blocks.append([])
        return cls(
            language,
            {name: [block for block in found if block] for name, found in sections.items()},
        )

    def lines(self, section: str) -> list[str]:
        """All lines of a section, whatever their block."""
        return [line for block in self.sections[section] for line in block]

    def named(self, section: str, separator: str = " | ") -> dict[str, list[str]]:
        """Lines `name: first | second` as a table of lists."""
        return {
            name: split(values, separator)
            for name, values in (line.split(": ", 1) for line in self.lines(section))
        }


def split(line: str, separator: str = " | ") -> list[str]:
    """The parts of a line."""
    return [part.strip() for part in line.split(separator)]


def is_held_out(block_number: int) -> bool:
    """Whether the frames of this block measure instead of train."""
    return block_number % HELD_OUT_OF == 5


class Generator:
    """Draws pairs of one language. With `held_out` only from held-out blocks, else from others."""

    def __init__(self, frames: Frames, rng: random.Random, held_out: bool) -> None:
        self.frames = frames
        self.rng = rng
        self.held_out = held_out
        self.is_spanish = frames.language == "es"
        self.slots = frames.named("slots", ",")
        self.patterns = frames.named("patterns")
        self.compatible = [set(line.split()) for line in frames.lines("compatible")]
        self.attributes = frames.named("compared")
        self.fillers = frames.named("fillers")
        self.abbreviations = [split(line, " / ") for line in frames.lines("abbreviations")]
        self.restrictions = split(frames.lines("restrictions")[0])
        self.imperatives = {}
        if self.is_spanish:
            entries = split(frames.lines("imperatives")[0])
            self.imperatives = dict(entry.split() for entry in entries)
        self.blocks = {
            name: [
                block
                for number, block in enumerate(self._blocks(name))
                if is_held_out(number) == held_out
            ]
            for name in COUNTS
        }

    def _blocks(self, kind: str) -> list[list[str]]:
        """The blocks of a kind. Kinds with one long list have one block for each line."""
        section = {
            "compared": "things",
            "roles": "role_verbs",
            "comparators": "comparator_patterns",
            "units": "unit_patterns",
        }.get(kind, kind)
        if section in ("actions", "things", "meanings"):
            return self.frames.sections[section]
        return [[line] for line in self.frames.lines(section)]

    def draw(self, kind: str) -> tuple[str, str, int]:
        """One pair of a kind: first text, second text, label."""
        make: Callable[[int], tuple[str, str]] = getattr(self, f"_{kind}")
        label = int(self.rng.random() < SHARE_OF_POSITIVES)
        first, second = make(label)
        values = self.values(first + " " + second)
        changed = values
        if label == 0 and first == second:
            changed = self.change_slot(values)
        first, second = fill(first, values), fill(second, changed)
        if self.rng.random() < SHARE_OF_CONDITIONS:
            first, second, label = self.restrict(first, second, label)
        return self.surface(first), self.surface(second), label

    # Kinds. Each returns two texts with open slots; two equal texts of label 0 ask for
    # different slot values.

    def _actions(self, label: int) -> tuple[str, str]:
        block = self.rng.choice(self.blocks["actions"])
        action = self.rng.choice(block)
        pattern = self.rng.choice(list(self.patterns))
        if label == 1:
            return self.two(
                lambda: self.ask(self.rng.choice(self.patterns[pattern]), self.word(action))
            )
        form = self.rng.choice(self.patterns[pattern])
        first = self.ask(form, self.word(action))
        kind = self.rng.random()
        if kind < 0.12 and SLOT.search(first):
            return first, first
        if kind < 0.35:
            other = self.rng.choice(self.incompatible(pattern))
            if self.rng.random() >= 0.4:
                # One wording of the action on both sides: only the patterns differ.
                action = first_wording(action)
                first = self.ask(form, action)
            return first, self.ask(self.rng.choice(self.patterns[other]), self.word(action))
        other_action = self.rng.choice([line for line in block if line != action])
        if self.rng.random() < 0.5:
            form = self.rng.choice(self.patterns[pattern])
        return first, self.ask(form, self.word(other_action))

    def _compared(self, label: int) -> tuple[str, str]:
        block = self.rng.choice(self.blocks["compared"])
        thing = self.rng.choice(block)
        attribute = self.rng.choice(list(self.attributes))
        if label == 1:
            return self.two(
                lambda: self.ask(self.rng.choice(self.attributes[attribute]), self.word(thing))
            )
        form = self.rng.choice(self.attributes[attribute])
        first = self.ask(form, self.word(thing))
        if self.rng.random() < 0.5:
            other = self.rng.choice([name for name in self.attributes if name != attribute])
            return first, self.ask(self.rng.choice(self.attributes[other]), self.word(thing))
        if self.rng.random() < 0.5:
            form = self.rng.choice(self.attributes[attribute])
        other_thing = self.rng.choice([line for line in block if line != thing])
        return first, self.ask(form, self.word(other_thing))

    def _roles(self, label: int) -> tuple[str, str]:
        a, b = split(self.rng.choice(self.frames.lines("roles")), " / ")
        if self.rng.random() < 0.5:
            a, b = b, a
        [verb_line] = self.rng.choice(self.blocks["roles"])
        verb = split(verb_line, " / ")
        pattern = self.rng.choice(self.frames.lines("role_patterns"))

        def role(form: str, first: str, second: str, words: Sequence[str]) -> str:
            text = form.replace("{v}", words[0]).replace("{p}", words[1])
            for name, value in (("{A}", first), ("{B}", second)):
                if value.startswith(("my ", "{")):
                    text = text.replace(f"the {name}", name)
                text = text.replace(name, value)
            return text

        forms = split(pattern)
        if label == 1:
            return self.two(lambda: role(self.rng.choice(forms), a, b, verb))
        first = role(self.rng.choice(forms), a, b, verb)
        kind = self.rng.random()
        if kind < 0.7:
            return first, role(self.rng.choice(forms), b, a, verb)
        if kind < 0.85:
            other = self.rng.choice([v for v in self.frames.lines("role_verbs") if v != verb_line])
            return first, role(self.rng.choice(forms), a, b, split(other, " / "))
        patterns = [line for line in self.frames.lines("role_patterns") if line != pattern]
        return first, role(self.rng.choice(split(self.rng.choice(patterns))), a, b, verb)

    def _directions(self, label: int) -> tuple[str, str]:
        [line] = self.rng.choice(self.blocks["directions"])
        slot, forms = line.split(": ", 1)
        a, b, c = self.rng.sample(self.slots[slot], 3)
        number = str(self.rng.choice((10, 40, 75, 250, 900)))

        def trip(start: str, end: str) -> str:
            form = self.rng.choice(split(forms))
            form = form.replace("{A}", start).replace("{B}", end)
            return form.replace("{amount_number}", number)

        if label == 1:
            return self.two(lambda: trip(a, b))
        if self.rng.random() < 0.75:
            return trip(a, b), trip(b, a)
        return trip(a, b), trip(a, c) if self.rng.random() < 0.5 else trip(c, b)

    def _comparators(self, label: int) -> tuple[str, str]:
        [line] = self.rng.choice(self.blocks["comparators"])
        unit, forms = line.split(": ", 1)
        bounds = self.frames.named("comparators")
        bound = self.rng.choice(list(bounds))
        number = self.rng.choice(self.slots["n"])

        def ask(name: str, n: str) -> str:
            text = self.rng.choice(bounds[name]).replace("{n}", n).replace("{unit}", unit)
            return self.rng.choice(split(forms)).replace("{}", text)

        if label == 1:
            return self.two(lambda: ask(bound, number))
        if self.rng.random() < 0.15:
            others = [n for n in self.slots["n"] if n != number]
            return ask(bound, number), ask(bound, self.rng.choice(others))
        other = self.rng.choice([name for name in bounds if name != bound])
        return ask(bound, number), ask(other, number)

    def _states(self, label: int) -> tuple[str, str]:
        [line] = self.rng.choice(self.blocks["states"])
        sides = [split(side) for side in split(line, " ; ")]
        self.rng.shuffle(sides)
        pattern = self.rng.choice(self.frames.lines("state_patterns"))

        def ask(forms: str, states: Sequence[str]) -> str:
            return self.rng.choice(split(forms)).replace("{}", self.rng.choice(states))

        if label == 1:
            return self.two(lambda: ask(pattern, sides[0]))
        if self.rng.random() < 0.75:
            return ask(pattern, sides[0]), ask(pattern, sides[1])
        patterns = [line for line in self.frames.lines("state_patterns") if line != pattern]
        return ask(pattern, sides[0]), ask(self.rng.choice(patterns), sides[0])

    def _qualified(self, label: int) -> tuple[str, str]:
        [line] = self.rng.choice(self.blocks["qualified"])
        noun, qualifiers = line.split(": ", 1)
        chosen = self.rng.sample(["", *split(qualifiers, ",")], 2)
        forms = self.rng.choice(self.frames.lines("qualified_patterns"))

        def ask(qualifier: str) -> str:
            words = (noun, qualifier) if self.is_spanish else (qualifier, noun)
            text = self.rng.choice(split(forms)).replace("{}", " ".join(words).strip())
            return text if self.is_spanish else re.sub(r"\ba ([aeiou])", r"an \1", text)

        if label == 1:
            return self.two(lambda: ask(chosen[0]))
        return ask(chosen[0]), ask(chosen[1])

    def _meanings(self, label: int) -> tuple[str, str]:
        block = self.rng.choice(self.blocks["meanings"])
        meaning = self.rng.choice(block)
        if label == 1:
            return self.two(lambda: self.word(meaning))
        if self.rng.random() < 0.1 and SLOT.search(meaning):
            text = self.word(meaning)
            return text, text
        other = self.rng.choice([line for line in block if line != meaning])
        return self.word(meaning), self.word(other)

    def _freshness(self, label: int) -> tuple[str, str]:
        [forms] = self.rng.choice(self.blocks["freshness"])
        times = self.frames.named("times")
        one, other = self.rng.sample(list(times), 2)

        def ask(time: str) -> str:
            return self.ask(self.word(forms), self.rng.choice(times[time]))

        if label == 1:
            return self.two(lambda: ask(one))
        return ask(one), ask(other)

    def _opposites(self, label: int) -> tuple[str, str]:
        [line] = self.rng.choice(self.blocks["opposites"])
        group, sides = line.split(": ", 1)
        one, other = self.rng.sample(split(sides, " ; "), 2)
        patterns = self.frames.lines("opposite_patterns")
        forms = self.rng.choice([form for form in patterns if form.startswith(f"{group}: ")])
        forms = forms.removeprefix(f"{group}: ")

        def ask(words: str) -> str:
            return self.ask(self.word(forms), self.word(words))

        if label == 1:
            return self.two(lambda: ask(one))
        return ask(one), ask(other)

    def _units(self, label: int) -> tuple[str, str]:
        [forms] = self.rng.choice(self.blocks["units"])
        line = self.rng.choice(self.frames.lines("units"))
        one, other = self.rng.sample(split(line, " ; "), 2)
        number = self.rng.choice(self.slots["n"])

        def ask(unit: str) -> str:
            return self.ask(self.word(forms), f"{number} {self.word(unit)}")

        if label == 1:
            return self.two(lambda: ask(one))
        return ask(one), ask(other)

    # Parts of the kinds.

    def two(self, make: Callable[[], str]) -> tuple[str, str]:
        """Two different texts of a maker, if a few tries find them."""
        first = make()
        for _ in range(6):
            second = make()
            if second != first:
                break
        return first, second

    def word(self, line: str) -> str:
        """One wording of a line."""
        return self.rng.choice(split(line))

    def ask(self, form: str, words: str) -> str:
        """Puts words into a pattern; `{!}` takes them in the imperative."""
        return form.replace("{!}", self.imperative(words)).replace("{}", words)

    def imperative(self, words: str) -> str:
        """A Spanish infinitive phrase as a request to one person."""
        verb, _, rest = words.partition(" ")
        clitic = ""
        if verb not in self.imperatives and verb[-4:-2] in ("ar", "er", "ir"):
            verb, clitic = verb[:-2], verb[-2:]
        if verb in self.imperatives:
            stem = self.imperatives[verb]
        elif verb.endswith("ar"):
            stem = verb[:-1]
        else:
            stem = verb[:-2] + "e"
        return f"{stem}{clitic} {rest}".strip()

    def incompatible(self, pattern: str) -> list[str]:
        """Patterns that ask for something else than this one with the same action."""
        return [
            other
            for other in self.patterns
            if other != pattern and not any({pattern, other} <= group for group in self.compatible)
        ]

    def values(self, text: str) -> dict[str, str]:
        """Values for the open slots of a text; a slot and its second one differ."""
        values: dict[str, str] = {}
        for name, second in sorted(set(SLOT.findall(text))):
            free = [value for value in self.slots[name] if value != values.get(name)]
            values[name + second] = self.rng.choice(free)
        return values

    def change_slot(self, values: dict[str, str]) -> dict[str, str]:
        """The values with another one in one slot."""
        name = self.rng.choice(sorted(values))
        free = [value for value in self.slots[name.rstrip("2")] if value != values[name]]
        return values | {name: self.rng.choice(free)}

    def restrict(self, first: str, second: str, label: int) -> tuple[str, str, int]:
        """Adds a condition to both texts (the label stays) or to one of them (label 0)."""
        one, other = self.rng.sample(self.restrictions, 2)
        values = self.values(one + other)
        if SLOT.search(one) and self.rng.random() < 0.5:
            one, other = fill(one, values), fill(one, self.change_slot(self.values(one)))
        else:
            one, other = fill(one, values), fill(other, values)
        if one == other:
            return self.add(first, one), self.add(second, one), label
        kind = self.rng.random()
        if kind < 0.4:
            return self.add(first, one), self.add(second, one), label
        if kind < 0.8:
            return first, self.add(second, one), 0
        return self.add(first, one), self.add(second, other), 0

    def add(self, text: str, condition: str) -> str:
        """A text with a condition at its end or at its start."""
        if self.rng.random() < 0.25:
            return f"{condition}, {text}"
        ending = re.search(r"[?.!]*$", text)[0]
        return f"{text[: len(text) - len(ending)]} {condition}{ending}"

    def surface(self, text: str) -> str:
        """Careless writing and politeness, which change nothing."""
        rng = self.rng
        if rng.random() < 0.22:
            text = self.courtesy(text)
        if rng.random() < 0.06:
            for long, short in rng.sample(self.abbreviations, len(self.abbreviations)):
                changed = re.sub(rf"\b{re.escape(long)}\b", short, text, count=1)
                if changed != text:
                    text = changed
                    break
        if rng.random() < 0.08:
            text = typo(text, rng)
        if rng.random() < 0.3:
            text = text.lower()
        if rng.random() < 0.2:
            text = text.strip("¿?.! ")
        if self.is_spanish and rng.random() < 0.2:
            text = without_accents(text)
        return text

    def courtesy(self, text: str) -> str:
        """A text with a greeting, a polite lead-in or thanks."""
        kind = self.rng.random()
        if kind < 0.5:
            return f"{self.rng.choice(self.fillers['before'])} {text}"
        if kind < 0.7:
            return f"{self.rng.choice(self.fillers['polite'])} {text}"
        return f"{text}{self.rng.choice(self.fillers['after'])}"


def first_wording(line: str) -> str:
    """The first wording of a line."""
    return split(line)[0]


def fill(text: str, values: dict[str, str]) -> str:
    """A text with its slots filled."""
    return SLOT.sub(lambda slot: values[slot[1] + slot[2]], text)


def typo(text: str, rng: random.Random) -> str:
    """A text with two letters of one longer word swapped, one dropped or one doubled."""
    words = text.split()
    candidates = [i for i, word in enumerate(words) if word.isalpha() and len(word) > 4]
    if not candidates:
        return text
    i = rng.choice(candidates)
    word = words[i]
    at = rng.randrange(1, len(word) - 2)
    words[i] = rng.choice(
        (
            word[:at] + word[at + 1] + word[at] + word[at + 2 :],
            word[:at] + word[at + 1 :],
            word[:at] + word[at] + word[at:],
        )
    )
    return " ".join(words)


def without_accents(text: str) -> str:
    """A text without its accents; `ñ` stays."""
    folded = unicodedata.normalize("NFD", text.replace("ñ", "\0"))
    return "".join(c for c in folded if not unicodedata.combining(c)).replace("\0", "ñ")


def from_hosts(
    hosts: Sequence[Pair], generators: dict[str, Generator], rng: random.Random, count: int
) -> Iterator[Pair]:
    """Pairs of label 1 with a greeting more, or of label 0 with a condition on one side more."""
    for host in rng.sample(hosts, min(count, len(hosts))):
        generator = generators["es" if host.source.endswith("_es") else "en"]
        first, second = host.first, host.second
        if rng.random() < 0.3:
            second = first
        if rng.random() < 0.5:
            yield Pair(first, generator.courtesy(second), 1, "courtesy", host.weight)
        else:
            first, second, label = generator.restrict(first, second, 1)
            yield Pair(first, second, label, "condition", host.weight)


def pairs(seed: int, hosts: Sequence[Pair] = (), held_out: bool = False) -> list[Pair]:
    """The generated pairs of both languages. `hosts` are pairs of label 1 to build upon."""
    rng = random.Random(seed)
    generators = {
        language: Generator(Frames.load(language), rng, held_out) for language in LANGUAGES
    }
    made = []
    seen: set[tuple[str, str]] = set()
    for language, generator in generators.items():
        for kind, count in COUNTS.items():
            for _ in range(count // HELD_OUT_OF if held_out else count):
                first, second, label = generator.draw(kind)
                if first != second and (first, second) not in seen:
                    seen.add((first, second))
                    made.append(Pair(first, second, label, f"{kind}_{language}"))
    made += from_hosts(hosts, generators, rng, HOSTS)
    return made
