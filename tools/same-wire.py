#!/usr/bin/env python3
"""Says whether two OpenAPI documents describe the same wire.

    tools/same-wire.py OLD.json NEW.json
    git show v0.1.0:openapi.json | tools/same-wire.py - openapi.json

Compares paths, methods, parameters, bodies, answers, security and every schema behind them. The
names of components, the order of keys and texts for readers (titles, descriptions, examples, tags)
do not count. Prints each difference with its place and ends with 1 when there is one.
"""

import json
import sys

# Texts for readers; the wire is the same without them.
WORDS = {"description", "summary", "example", "examples", "title", "tags", "externalDocs"}
# Lists whose order means nothing.
SETS = {"required", "enum", "security", "type"}


def read(name):
    with sys.stdin if name == "-" else open(name, encoding="utf-8") as file:
        return json.load(file)


def resolved(node, document, inside=(), key=None):
    """The node with every reference replaced by what it names; a schema within itself by a mark."""
    if isinstance(node, list):
        items = [resolved(item, document, inside) for item in node]
        return sorted(items, key=lambda item: json.dumps(item, sort_keys=True)) if key in SETS else items
    if not isinstance(node, dict):
        return node
    reference = node.get("$ref")
    if isinstance(reference, str):
        if reference in inside:
            return {"within itself": inside[::-1].index(reference)}
        target = document
        for part in reference.removeprefix("#/").split("/"):
            target = target[part.replace("~1", "/").replace("~0", "~")]
        return resolved(target, document, (*inside, reference))
    # Properties are named by clients: a field that is called `title` is no text for readers.
    named = key in ("properties", "responses", "paths", "headers", "content")
    kept = {name: value for name, value in node.items() if named or name not in WORDS}
    found = {name: resolved(value, document, inside, name) for name, value in kept.items()}
    if key is None and "parameters" in found:
        found["parameters"] = by_name(found["parameters"])
    return found


def by_name(parameters):
    return {f"{parameter['in']} {parameter['name']}": parameter for parameter in parameters}


def wire(document):
    """Each operation by its method and path."""
    methods = {"get", "put", "post", "delete", "patch", "head", "options", "trace"}
    operations = {}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method in methods:
                shared = {name: value for name, value in item.items() if name not in methods}
                operation = {**operation, "shared": shared}
                operation.pop("operationId", None)
                operations[f"{method.upper()} {path}"] = resolved(operation, document)
    schemes = document.get("components", {}).get("securitySchemes", {})
    return {"operations": operations, "security schemes": resolved(schemes, document)}


def differences(old, new, place):
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            at = f"{place} > {name}" if place else name
            if name not in new:
                yield f"{at}: gone, was {shown(old[name])}"
            elif name not in old:
                yield f"{at}: new, is {shown(new[name])}"
            else:
                yield from differences(old[name], new[name], at)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for at, (before, after) in enumerate(zip(old, new)):
            yield from differences(before, after, f"{place}[{at}]")
    elif old != new:
        yield f"{place}: was {shown(old)}, is {shown(new)}"


def shown(value):
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= 120 else text[:117] + "..."


def main(arguments):
    if len(arguments) != 2:
        sys.exit(__doc__)
    found = list(differences(wire(read(arguments[0])), wire(read(arguments[1])), ""))
    for difference in found:
        print(difference)
    print(f"{len(found)} differences" if found else "the same wire")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
