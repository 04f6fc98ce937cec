"""A headless Chromium, driven through its debugging pipe: for tests only.

Two pipes of null-terminated json need neither a port nor a driver package.
"""

import base64
import json
import os
import pathlib
import select
import shutil
import subprocess
import sys
import time
from typing import Any

FLAGS = (
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--disable-dev-shm-usage',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
)
_PATIENCE = 20.0  # Seconds to wait for any one answer.
# Chromium reads commands from descriptor 3 and answers on 4. Set by a process
# in between: a preexec_fn is not safe beside the threads of other tests.
_AS_THREE_AND_FOUR = """
import fcntl, os, sys
ours = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 10) for fd in sys.argv[1:3]]
os.dup2(ours[0], 3)
os.dup2(ours[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


def find_chromium() -> str | None:
  """Returns the path of a Chromium, if there is one."""
  names = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')
  return next(filter(None, map(shutil.which, names)), None)


class Page:
  """One tab. `problems` gathers exceptions and console errors."""

  def __init__(self, program: str, folder: pathlib.Path):
    commands, answers = os.pipe(), os.pipe()
    theirs = (commands[0], answers[1])
    self._process = subprocess.Popen(
      [
        sys.executable,
        '-c',
        _AS_THREE_AND_FOUR,
        *map(str, theirs),
        program,
        *FLAGS,
        '--remote-debugging-pipe',
        f'--user-data-dir={folder}',
        'about:blank',
      ],
      pass_fds=theirs,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
    )
    os.close(commands[0])
    os.close(answers[1])
    self._out, self._in = commands[1], answers[0]
    self._buffer, self._count, self._session = b'', 0, None
    self.problems: list[str] = []
    self.requests: list[str] = []
    targets = self.call('Target.getTargets')['targetInfos']
    target = next(t['targetId'] for t in targets if t['type'] == 'page')
    attached = self.call('Target.attachToTarget', targetId=target, flatten=True)
    self._session = attached['sessionId']
    for domain in ('Page', 'Runtime', 'Log', 'Network'):
      self.call(f'{domain}.enable')

  def call(self, method: str, **params: Any) -> dict:
    """Returns the result of a command of the debugging protocol."""
    self._count += 1
    message = {'id': self._count, 'method': method, 'params': params}
    if self._session:
      message['sessionId'] = self._session
    os.write(self._out, json.dumps(message).encode() + b'\0')
    deadline = time.monotonic() + _PATIENCE
    while True:
      answer = self._receive(deadline)
      if answer.get('id') == self._count:
        if 'error' in answer:
          raise RuntimeError(f'{method}: {answer["error"]["message"]}')
        return answer['result']
      self._note(answer)

  def open(self, url: str) -> None:
    """Opens an address from scratch and waits until the page is ready."""
    self.call('Page.navigate', url='about:blank')
    self.problems.clear()
    self.requests.clear()
    self.call('Page.navigate', url=url)
    self.wait("document.documentElement?.dataset.ready === 'yes'")

  def wait(self, condition: str) -> None:
    """Waits until an expression is true."""
    deadline = time.monotonic() + _PATIENCE
    while not self.run(f'Boolean({condition})'):
      if time.monotonic() > deadline:
        raise TimeoutError(f'{condition} is not true; {self.problems}')
      time.sleep(0.02)

  def run(self, expression: str) -> Any:
    """Returns the value of an expression, by json."""
    result = self.call(
      'Runtime.evaluate', expression=expression, returnByValue=True
    )
    if 'exceptionDetails' in result:
      raise RuntimeError(result['exceptionDetails']['exception']['description'])
    return result['result'].get('value')

  def key(self, key: str) -> None:
    """Presses and releases a key, e.g. 'Enter' or 'ArrowRight'."""
    code = {'Enter': 13, 'Escape': 27, 'Tab': 9}.get(key, 0)
    for kind in ('rawKeyDown', 'keyUp'):
      self.call(
        'Input.dispatchKeyEvent',
        type=kind,
        key=key,
        windowsVirtualKeyCode=code,
      )

  def hover(self, selector: str) -> None:
    """Moves the pointer to the middle of the first matching element."""
    middle = (
      '(() => { const e = document.querySelector('
      + json.dumps(selector)
      + '); e.scrollIntoView({block: "center", behavior: "instant"});'
      'const b = e.getBoundingClientRect();'
      'return [b.x + b.width / 2, b.y + b.height / 2]; })()'
    )
    before, now = None, self.run(middle)
    while now != before:  # a page that is still laid out moves under it
      x, y = now
      self.call('Input.dispatchMouseEvent', type='mouseMoved', x=x, y=y)
      before, now = now, self.run(middle)

  def screenshot(self, path: pathlib.Path, dark: bool, width: int) -> None:
    """Saves the whole page as png."""
    scheme = 'dark' if dark else 'light'
    self.call(
      'Emulation.setEmulatedMedia',
      features=[{'name': 'prefers-color-scheme', 'value': scheme}],
    )
    self.resize(width, 900)
    height = self.run('document.documentElement.scrollHeight')
    self.resize(width, height)
    shot = self.call('Page.captureScreenshot', format='png')
    path.write_bytes(base64.b64decode(shot['data']))

  def resize(self, width: int, height: int) -> None:
    self.call(
      'Emulation.setDeviceMetricsOverride',
      width=width,
      height=height,
      deviceScaleFactor=1,
      mobile=False,
    )

  def close(self) -> None:
    try:
      self._session = None
      self.call('Browser.close')
      self._process.wait(timeout=5)
    except (OSError, RuntimeError, subprocess.TimeoutExpired):
      self._process.kill()
      self._process.wait()
    os.close(self._out)
    os.close(self._in)

  def _receive(self, deadline: float) -> dict:
    while b'\0' not in self._buffer:
      left = deadline - time.monotonic()
      if left <= 0 or not select.select([self._in], [], [], left)[0]:
        raise TimeoutError('Chromium does not answer')
      part = os.read(self._in, 1 << 20)
      if not part:
        raise RuntimeError('Chromium ended')
      self._buffer += part
    message, self._buffer = self._buffer.split(b'\0', 1)
    return json.loads(message)

  def _note(self, event: dict) -> None:
    method, params = event.get('method'), event.get('params', {})
    if method == 'Runtime.exceptionThrown':
      self.problems.append(json.dumps(params['exceptionDetails'])[:500])
    elif method == 'Log.entryAdded' and params['entry']['level'] == 'error':
      self.problems.append(params['entry']['text'])
    elif method == 'Runtime.consoleAPICalled' and params['type'] == 'error':
      self.problems.append(json.dumps(params['args'])[:500])
    elif method == 'Network.requestWillBeSent':
      self.requests.append(params['request']['url'])
