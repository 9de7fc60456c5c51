"""Files and data sets in the users' formats -> examples with ids and strata; chosen rows back out, untouched.

The journey, a file for each step::

    what the user calls a pool  --find-->  sources (text, tables, source: one container each)
      --rows-->  formats  -->  Example (example)  -->  identity (ids), strata
      --chosen rows-->  write  -->  the same bytes, in the same container

`Pool` (pool) holds the two ends together. Nothing here needs torch or `datasets`, except a hub id.
"""

from __future__ import annotations

from lossift.pool.example import Example, Message
from lossift.pool.identity import ID_HASH
from lossift.pool.pool import Pool, digest_files, read_pool, reopen
from lossift.pool.strata import Stratum
from lossift.pool.write import container_of

__all__ = ["ID_HASH", "Example", "Message", "Pool", "Stratum", "container_of", "digest_files", "read_pool", "reopen"]
