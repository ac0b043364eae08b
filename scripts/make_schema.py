"""Write the JSON schema of the config file, for editors: vosflow/config.schema.json."""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the script runs from a plain checkout

from vosflow import config
from vosflow.errors import run_command


def main() -> None:
    """Generate the schema from the typed models."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", default=Path(config.__file__).with_name("config.schema.json"), type=Path)
    args = parser.parse_args()
    args.output.write_text(json.dumps(config.config_schema(), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_command(main)
