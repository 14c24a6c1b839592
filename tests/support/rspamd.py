"""rspamd with one rule: a message says itself what rspamd is to answer."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.conftest import unavailable
from tests.support.daemon import Daemon

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

BODY = b"X-A: 1\nx-a: 2\nX-A: 3\nSubject: hello\n\nhello \xff\n.\n"

# X-Test holds JSON: action, message, and what set_milter_reply takes; what task:set_message does.
# X-Facts asks for what rspamd was told.
_RULE = """
local ucl = require "ucl"
local facts = {
  'IP', 'Helo', 'Hostname', 'User', 'TLS-Version', 'TLS-Cipher', 'Queue-Id', 'From', 'Rcpt',
  'MTA-Name', 'MTA-Tag', 'Settings-ID', 'Flags', 'Content-Length',
}

local function wanted(task)
  local header = task:get_header('X-Test')
  if not header then return nil end
  local parser = ucl.parser()
  local ok, err = parser:parse_string(header)
  if not ok then return { action = 'soft reject', message = err } end
  return parser:get_object()
end

rspamd_config:register_symbol({
  name = 'TEST_RULE',
  type = 'prefilter',
  score = 1.5,
  callback = function(task)
    local test = wanted(task)
    if not test then return false end
    if test.milter then task:set_milter_reply(test.milter) end
    for _, domain in ipairs(test.sign or {}) do
      rspamd_plugins.dkim.sign(task, { domain = domain, selector = 'k', key = 'KEY' })
    end
    if test.facts then
      local told = {}
      for _, name in ipairs(facts) do
        local value = task:get_request_header(name)
        if value then told[name] = tostring(value) end
      end
      local from = task:get_from('smtp')
      told.sender = from and from[1] and from[1].addr or ''
      told.recipients = {}
      for _, rcpt in ipairs(task:get_recipients('smtp') or {}) do
        table.insert(told.recipients, rcpt.addr)
      end
      told.size = task:get_size()
      told.ip = tostring(task:get_from_ip())
      local json = ucl.to_format(told, 'json-compact')
      task:set_milter_reply({ add_headers = { ['X-Told'] = json } })
    end
    if test.body then
      local raw = tostring(task:get_content())
      local stop = raw:find('\\r\\n\\r\\n', 1, true)
      task:set_message(raw:sub(1, stop + 3) .. test.body)
    end
    if test.action then
      task:set_pre_result(test.action, test.message, 'test')
    end
    return true, 1.0
  end,
})
"""


def missing() -> str | None:
    """Return why rspamd cannot run here, or None if it can."""
    return None if shutil.which("rspamd") else "rspamd is not installed (Debian: rspamd)"


@contextmanager
def running(folders: pytest.TempPathFactory) -> Iterator[RspamdServer]:
    """Run one for a module's tests, which cannot run where rspamd is missing."""
    if reason := missing():
        unavailable(reason)
    with RspamdServer(folders.mktemp("rspamd") / "it") as server:
        yield server


def asking_for(**test: Any) -> bytes:
    """Make a message that tells this rspamd what to answer."""
    return b"X-Test: " + json.dumps(test).encode() + b"\n" + BODY


def _private_key() -> bytes:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


class RspamdServer(Daemon):
    """A running rspamd with one worker.

    Args:
        directory: its own.
        settings: of the options section.
    """

    def __init__(self, directory: Path, settings: str = "") -> None:
        super().__init__(directory)
        rule = directory / "rule.lua"
        self.key = directory / "key.pem"
        self.key.write_bytes(_private_key())
        rule.write_text(_RULE.replace("KEY", str(self.key)))
        self._conf = directory / "rspamd.conf"
        self._conf.write_text(
            f'options {{ pidfile = "{directory}/pid"; filters = "dkim";\n'
            f'  dns {{ nameserver = ["127.0.0.1:1"]; timeout = 0.1s; }} {settings} }}\n'
            'logging { type = "console"; level = "warning"; }\n'
            f'lua = "{rule}";\n'
            "actions { greylist = 700; add_header = 800; rewrite_subject = 900; quarantine = 950;\n"
            '  reject = 1000; discard = 2000; subject = "[SPAM] %s"; }\ndkim { }\n'
            f'worker "normal" {{ bind_socket = "127.0.0.1:{self.port}"; count = 1; }}\n'
        )

    def command(self) -> list[str | Path]:
        """Return the command line."""
        return ["rspamd", "--insecure", "-f", "-c", self._conf]
