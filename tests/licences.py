"""Licences of installed distributions, in the words of SPDX, from whatever their metadata say."""

from importlib import metadata

SPDX = {
    "Apache 2": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "GNU General Public License v3 or later (GPLv3+)": "GPL-3.0-or-later",
}
"""How older metadata call them."""
TITLES = {"The MIT License": "MIT", "BSD 2-Clause License": "BSD-2-Clause"}
"""What the text itself begins with, for distributions whose metadata have no licence."""


def licence_of(name: str) -> str:
    """The licence of an installed distribution. Raises LookupError where it does not say it in any way known here."""
    message = metadata.metadata(name)
    if "License-Expression" in message:
        return str(message["License-Expression"])
    classifiers = [item.rpartition(" :: ")[2] for item in message.get_all("Classifier") or () if "License ::" in item]
    listed = [SPDX[item] for item in classifiers if item in SPDX]
    short = str(message["License"]) if "License" in message else ""
    if short and "\n" not in short and len(listed) < 2:
        return SPDX.get(short, short)
    return " OR ".join(sorted(listed)) if listed else _from_text(name)


def _from_text(name: str) -> str:
    for path in metadata.files(name) or ():
        if "LICENSE" in path.name:
            begin = str(path.read_text()).lstrip("# \n")
            return next(licence for title, licence in TITLES.items() if begin.startswith(title))
    raise LookupError(name)
