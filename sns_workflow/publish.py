"""A finished run as one file for an archive such as Zenodo: `python -m sns_workflow.publish results/demo`.

The zip file holds the run's files, the code that made them, checksums, and the metadata of a Workflow Run RO-Crate (see
`crate`). Beside it lies `<run>.zenodo.json`, the metadata of a deposit. Nothing is uploaded.
"""

import argparse
import copy
import hashlib
import html
import io
import json
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from sns_core import plugins
from sns_core.errors import UserError
from sns_core.export.rollout import size_of
from sns_core.files import recorded_entry, sha256, whole_file, write_json
from sns_core.plugins import definitions
from sns_core.record import RUN, check_current, read_run, records_below
from sns_core.wording import count_of, listed
from sns_workflow.config_values import merge
from sns_workflow.crate import CONFIGURATION, PAGE, PAPER, Publication, jobs_of, made_for, metadata_of

ROOT = Path(__file__).parents[1]
# What a package may leave out, and the files that this means, by their names below the run's folder.
PARTS = {
    "data": ("*/data/*.nc", "*/shards/*.npy"),
    "models": ("*/models/*.safetensors",),
    "rollouts": ("*/rollouts/**/*.nc", "*/rollouts/**/*.safetensors", "*/ensembles/*.nc"),
}
LINKS = "link_result"  # the stage that links to a result of another point of a sweep
# Snakemake's logs, checkpoints of trainings and the page of an unfinished run are no results.
UNWANTED = ("progress.html", "**/logs/**/*", "**/*.running", "**/*.damaged", "**/.*", "**/.*/**/*")
CODE = ("Snakefile", "workflow", "sns_workflow", "sns_core", "config", "profiles", "envs", "pyproject.toml", "LICENSE")
LICENCES = ("CC-BY-4.0", "CC-BY-SA-4.0", "CC0-1.0", "MIT", "Apache-2.0", "ODbL-1.0")


def files_of(run: Path, without: list[str]) -> dict[str, Path]:
    """Return name -> path of the files of a run that a package holds; `without`: names of PARTS that are left out."""
    unwanted = [*UNWANTED, *(pattern for part in without for pattern in PARTS[part])]
    left_out = {path for pattern in unwanted for path in run.glob(pattern)}
    # In a run of a sweep, links lead to files that another run has made: they are packed as these files.
    paths = sorted(path for path in run.rglob("*") if path.is_file())
    return {str(path.relative_to(run)): path for path in paths if path not in left_out}


def code_of(commits: list[str]) -> tuple[dict[str, bytes], str]:
    """Return name -> content of the code that made a run, and a sentence that says which code it is.

    The files are those of the last commit. Where this clone does not have that commit, they are those that lie here.
    """
    for commit in reversed(commits):
        words = ["git", "-C", str(ROOT), "archive", commit, "--", *CODE]
        call = subprocess.run(words, capture_output=True)
        if call.returncode == 0:
            with tarfile.open(fileobj=io.BytesIO(call.stdout)) as archive:
                # A link, such as that of the schema, is packed as the file to which it leads.
                members = [member for member in archive if member.isfile() or member.issym()]
                contents = {member.name: archive.extractfile(member).read() for member in members}
            return contents, f"The folder `workflow` holds the code of commit {commit}."
    paths = [path for name in CODE for path in [ROOT / name, *(ROOT / name).rglob("*")]]
    contents = {
        str(path.relative_to(ROOT)): path.read_bytes()
        for path in paths
        if path.is_file() and "__pycache__" not in path.parts
    }
    if "Snakefile" not in contents:
        raise UserError(f"{ROOT}: no clone of the workflow; call `python -m sns_workflow.publish` from a clone")
    reason = f"This clone does not have the commit {', '.join(commits)} that made the run"
    return contents, f"{reason}, so the folder `workflow` holds the code of the clone."


def own_code_of(record: dict) -> dict[str, bytes]:
    """Return name -> content of the user's own files that a run used: of its systems, methods, objectives and metrics.

    Raises UserError where one of them is not in the working directory.
    """
    configuration, names = record["configuration"], []
    for system, described in record["systems"].items():
        block = configuration["systems"][system]
        changed = merge(copy.deepcopy(configuration), copy.deepcopy(block.get("override", {})))
        names += [block.get("solver", {}).get("class", ""), *changed.get("metrics", {}).get("user", [])]
        names += [method["kind"] for method in described.get("methods", {}).values()]
        names += [changed.get("models", {}).get(model, {}).get("objective", "") for model in described["models"]]
    try:
        paths = {
            path
            for name in filter(plugins.is_own, names)
            if definitions.definition(name)
            for path in definitions.files_behind(name)
        }
    except ValueError as error:
        raise UserError(f"{error}; call this in the folder where the run was made") from None
    return {str(path.relative_to(Path.cwd())): path.read_bytes() for path in sorted(paths)}


def needed_of(record: dict) -> list[str]:
    """Return the files and folders that a run reads and that no package holds, as the configuration names them.

    They are a folder of the gallery, the files of a source, and rollouts of other programs.
    """
    configuration, names = record["configuration"], []
    if configuration.get("reuse"):
        names.append(configuration["reuse"]["folder"])
    for system, described in record["systems"].items():
        source = configuration["systems"][system].get("source") or {}
        files = source.get("files", {})
        for each in files.values() if isinstance(files, dict) else [files]:
            names += [each] if isinstance(each, str) else each
        names.append((source.get("static") or {}).get("file"))
        names += [method.get("file") for method in described.get("methods", {}).values()]
    return list(dict.fromkeys(filter(None, names)))


def records_of(run: Path) -> dict[str, dict]:
    """Return the records of a run's results.

    A point of a sweep may have made a shard itself before it linked to that of another point. The record of that shard
    is left out: it tells of a file that is gone.
    """
    records = records_below(run)
    former = [name for name, record in records.items() if (run / name).is_symlink() and record["stage"] != LINKS]
    return {name: record for name, record in records.items() if name not in former}


def check_records(paths: dict[str, Path], files: dict[str, dict]) -> None:
    """Raise UserError for files that are not what their records say.

    `files`: name -> {"bytes", "sha256"} as they are now.
    """
    entries = {name: recorded_entry(path) for name, path in paths.items()}
    altered = [name for name, entry in entries.items() if entry and entry["sha256"] != files[name]["sha256"]]
    if altered:
        others = f", and so are {len(altered) - 1} more" if len(altered) > 1 else ""
        raise UserError(
            f"{paths[altered[0]]}: not what its job wrote{others}; run `snakemake verify`, and make it again"
        )


def page_of(
    publication: Publication,
    files: dict[str, dict],
    without: list[str],
    code: str,
    others: list[str] = (),
    needed: list[str] = (),
) -> str:
    """Return the README of a package: title, licence, size, contents, and how to check them.

    `code`: a sentence about the code. `others`: names of files that were not made for the report. `needed`: names of files
    that the run reads from elsewhere.
    """
    total = sum(entry["bytes"] for entry in files.values())
    folders: dict[str, list[int]] = {}
    for name, entry in files.items():
        folder = "/".join(name.split("/")[:-1][:2]) or "."
        folders.setdefault(folder, []).append(entry["bytes"])
    rows = [f"| `{folder}` | {len(sizes)} | {sum(sizes) / 1e6:.2f} |" for folder, sizes in sorted(folders.items())]
    first = (
        f" Put there first what is not in this package: {', '.join(f'`{name}`' for name in needed)}." if needed else ""
    )
    left_out = f"Left out: {', '.join(without)}; their checksums are in the records. " if without else ""
    return "\n".join(
        [
            f"# {publication.title}",
            "",
            publication.description,
            "",
            f"Licence: {publication.license}. By {'; '.join(publication.creators)}. {left_out}{code}",
            f"Method: {PAPER}.",
            "",
            f"{len(files)} files, {total / 1e6:.2f} MB. `sha256sum -c checksums.sha256` checks them. "
            "`ro-crate-metadata.json` (Workflow Run RO-Crate, profile Provenance Run Crate 0.5) says which job made which "
            "file from which others. Open `report.html` first. To make the run again, in the folder `workflow`: "
            f"`snakemake --cores all --configfile ../{CONFIGURATION}`.{first}",
            "",
            "| folder | files | MB |",
            "|---|---|---|",
            *rows,
            "",
            *([f"Not made for the report: {', '.join(f'`{name}`' for name in others)}.", ""] if others else []),
        ]
    )


def zenodo_metadata(publication: Publication) -> dict:
    """Return the metadata of a deposit, as Zenodo's REST interface takes it."""
    return {
        "metadata": {
            "upload_type": "dataset",
            "title": publication.title,
            "description": f"<p>{html.escape(publication.description)}</p>",
            "creators": [{"name": name} for name in publication.creators],
            "license": publication.license.lower(),
            "access_right": "open",
            "keywords": ["neural surrogate", "diffusion model", "turbulence", "Snakemake", "RO-Crate"],
            "related_identifiers": [
                {"identifier": PAPER, "relation": "isSupplementTo", "resource_type": "publication"}
            ],
        }
    }


def describe(run: Path, record: dict) -> str:
    """Return a paragraph about a run: systems, methods, steps, seed."""
    configuration = record["configuration"]
    systems = ", ".join(
        f"{name} ({configuration['systems'][name].get('solver', {}).get('class', 'data from files')})"
        for name in record["systems"]
    )
    sizes: dict[tuple[int, int], list[str]] = {}
    for name in record["systems"]:
        sizes.setdefault(size_of(run / name, record), []).append(name)
    words = [
        f"{count_of(members, 'member')} over {count_of(steps, 'step')}" + f" of {listed(names)}" * (len(sizes) > 1)
        for (members, steps), names in sizes.items()
    ]
    return (
        f"Data, models, rollouts, scores and figures of the run {configuration['run']} (seed {record['seed']}): "
        f"{', '.join(configuration['use']['methods'])} on {systems}, {', '.join(words)}."
    )


def publish(
    run: Path, output: Path, publication: Publication, without: list[str] = ()
) -> tuple[dict[str, dict], list[str]]:
    """Write the package of a run, and the metadata of its deposit beside it.

    Returns name -> {"bytes", "sha256"}, and the names of files that were not made for the report: of a method that is
    no longer in the configuration, or of no job at all. Raises UserError for a folder without a finished run or without
    records, for one that is of the gallery, for an output in the run's folder, for a file that is not what its record
    says, for a report that was made from other files than those that are there, and where the user's own code is not
    here.
    """
    if not (run / RUN).exists() and (run / "given.json").exists():
        raise UserError(f"{run}: a folder of the gallery has no records of its jobs; publish the run itself")
    if output.resolve().is_relative_to(run.resolve()):
        raise UserError(
            f"{output}: lies in the run's folder, so the next package would hold this one; put it elsewhere"
        )
    record = read_run(run)
    configuration = record["configuration"]
    records = records_of(run)
    if not records:
        raise UserError(f"{run}: holds no records of its jobs (provenance/*.json), so nothing says what made its files")
    check_current(run, configuration, records, ("report.html", RUN))
    jobs = jobs_of(records, f"{configuration['results']}/{configuration['run']}")
    code, sentence = code_of([code["commit"] for code in record["code_of_results"]])
    if any(
        code["dirty"]
        for code in [*record["code_of_results"], *(made["code"] for made in records.values() if "code" in made)]
    ):
        sentence += " The run was made with uncommitted changes, which are not in it."
    if users_code := own_code_of(record):
        code |= users_code
        sentence += f" The user's own code is in it, too: {', '.join(users_code)}."
    texts = {CONFIGURATION: json.dumps(configuration, indent=1, sort_keys=True).encode() + b"\n"}
    sources = {f"workflow/{name}": content for name, content in code.items()}
    paths = files_of(run, without)
    files = {name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for name, path in paths.items()}
    check_records({name: path for name, path in paths.items() if name in records or not path.is_symlink()}, files)
    of_report = made_for(("report.html", RUN), jobs)
    others = [
        name
        for name, path in paths.items()
        if name not in of_report and path.parent.name != "provenance" and not path.is_symlink()
    ]
    files |= {name: _entry(content) for name, content in texts.items()}
    described = {name: _entry(content) for name, content in sources.items()}
    texts[PAGE] = page_of(publication, files | described, without, sentence, others, needed_of(record)).encode()
    files[PAGE] = _entry(texts[PAGE])
    metadata = metadata_of(record, jobs, files, described, publication)
    texts["ro-crate-metadata.json"] = json.dumps(metadata, indent=1).encode() + b"\n"
    contents = files | described | {"ro-crate-metadata.json": _entry(texts["ro-crate-metadata.json"])}
    texts["checksums.sha256"] = "".join(f"{entry['sha256']}  {name}\n" for name, entry in contents.items()).encode()
    with whole_file(output) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, content in _in_order(texts | sources | paths):
            # The same run gives the same bytes: no date of a file is stored.
            member = zipfile.ZipInfo(name)
            member.compress_type, member.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            with archive.open(member, "w", force_zip64=True) as handle:
                for block in _blocks(content):
                    handle.write(block)
    write_json(output.with_suffix(".zenodo.json"), zenodo_metadata(publication))
    return contents, others


def _in_order(contents: dict) -> Iterator[tuple]:
    """Yield the files of a package, those first that say what it is."""
    first = (PAGE, "ro-crate-metadata.json", "checksums.sha256")
    yield from ((name, contents[name]) for name in first)
    yield from ((name, content) for name, content in sorted(contents.items()) if name not in first)


def _blocks(content: bytes | Path) -> Iterator[bytes]:
    """Yield the bytes of a content in blocks; a file may be larger than memory."""
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as handle:
        yield from iter(lambda: handle.read(2**22), b"")


def _entry(content: bytes) -> dict:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sns_workflow.publish", description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a finished run, such as results/demo")
    parser.add_argument("--output", type=Path, help="the zip file (default: <run>.zip beside the folder)")
    parser.add_argument("--license", choices=LICENCES, default="CC-BY-4.0", help="SPDX name (default: %(default)s)")
    parser.add_argument("--creators", nargs="+", required=True, help='each as "Family name, given name"')
    parser.add_argument("--title", help="title of the package")
    parser.add_argument(
        "--without", nargs="*", choices=PARTS, default=[], help="parts to leave out, for a smaller file"
    )
    return parser.parse_args(words)


def main(words: list[str]) -> int:
    """Publish the run that the words of the command line name. Return the exit status."""
    arguments = _arguments(words)
    run = arguments.run
    output = arguments.output or run.resolve().parent / f"{run.resolve().name}.zip"
    try:
        record = read_run(run)
        title = arguments.title or f"Self-refining neural surrogates: the run {record['configuration']['run']}"
        publication = Publication(title, describe(run, record), arguments.license, tuple(arguments.creators))
        contents, others = publish(run, output, publication, arguments.without)
    except (UserError, OSError) as error:
        print(f"publish: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    size = sum(entry["bytes"] for entry in contents.values())
    print(f"{output}: {len(contents)} files, {size / 1e6:.1f} MB, {output.stat().st_size / 1e6:.1f} MB packed")
    if others:
        print(f"{len(others)} of them were not made for the report, {others[0]} among them; README.md names all")
    print(f"{output.with_suffix('.zenodo.json')}: title, creators and licence of a deposit")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
