# Import the library that belongs to these rules, and check config.yaml before Snakemake reads it.

import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

# Scripts and rules import the library next to the scripts. If another workflow fetched the rules from a repository,
# there is no such folder, and the installed library is used.
_scripts = Path(str(workflow.current_basedir.join("../scripts")))
if _scripts.is_dir():
    sys.path.insert(0, str(_scripts))

import vosarena
from vosarena.base.yaml_files import read_yaml
from vosarena.base.errors import VosarenaError

_library = Path(vosarena.__file__).parent
if _scripts.is_dir() and not _library.samefile(_scripts / "vosarena"):
    logger.warning(f"The rules use the library in {_library}, not their own in {_scripts / 'vosarena'}.")

# For a mistake in YAML, Snakemake shows neither the file nor the line.
if Path("config.yaml").is_file() and not workflow.modifier.skip_configfile:
    try:
        read_yaml(Path("config.yaml"))
    except VosarenaError as error:
        raise WorkflowError(str(error)) from None
