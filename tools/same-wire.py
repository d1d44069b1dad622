#!/usr/bin/env python3
"""Tells whether two OpenAPI documents describe the same interface.

    tools/same-wire.py OLD.json NEW.json
    git show v0.1.0:openapi.json | tools/same-wire.py - openapi.json

Compares paths, methods, parameters, bodies, responses, security and all their schemas. Ignores the
names of components, the order of keys, and texts for readers (titles, descriptions, examples, tags).
Prints each difference with its place, and exits with 1 if there are any.
"""

import json
import sys

# Texts for readers, which are ignored.
WORDS = {"description", "summary", "example", "examples", "title", "tags", "externalDocs"}
# Lists whose order is ignored.
SETS = {"required", "enum", "security", "type"}


def read(name):
    with sys.stdin if name == "-" else open(name, encoding="utf-8") as file:
        return json.load(file)


def resolved(node, document, inside=(), key=None):
    """The node with each reference replaced by its target, and a recursive one by its depth."""
    if isinstance(node, list):
        items = [resolved(item, document, inside) for item in node]
        return sorted(items, key=lambda item: json.dumps(item, sort_keys=True)) if key in SETS else items
    if not isinstance(node, dict):
        return node
    reference = node.get("$ref")
    if isinstance(reference, str):
        if reference in inside:
            return {"recursive": inside[::-1].index(reference)}
        target = document
        for part in reference.removeprefix("#/").split("/"):
            target = target[part.replace("~1", "/").replace("~0", "~")]
        return resolved(target, document, (*inside, reference))
    # The keys of these are names, so a property `title` is not a text for readers.
    named = key in ("properties", "responses", "paths", "headers", "content")
    kept = {name: value for name, value in node.items() if named or name not in WORDS}
    found = {name: resolved(value, document, inside, name) for name, value in kept.items()}
    if key is None and "parameters" in found:
        found["parameters"] = by_name(found["parameters"])
    return found


def by_name(parameters):
    return {f"{parameter['in']} {parameter['name']}": parameter for parameter in parameters}


def wire(document):
    """The operations by method and path, and the security schemes."""
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
                yield f"{at}: removed, was {shown(old[name])}"
            elif name not in old:
                yield f"{at}: added, is {shown(new[name])}"
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
    print(f"{len(found)} differences" if found else "no differences")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
