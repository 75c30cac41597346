"""The page of a service in a real browser.

Needs the extra `page-test` and a Chromium on the path, and is run by
`make test ARGS='-m slow tests/serving/test_server_page.py'`.
"""

import pathlib
import shutil

import pytest
from services import Service
from test_server import expected, package, picture  # noqa: F401

sync_api = pytest.importorskip('playwright.sync_api')
CHROMIUM = shutil.which('chromium') or shutil.which('google-chrome')
pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(CHROMIUM is None, reason='no Chromium on the path'),
]

# A file dropped on an element, as a browser tells of it.
_DROP = """async ([target, name, bytes]) => {
  const data = new DataTransfer();
  data.items.add(new File([new Uint8Array(bytes)], name));
  const event = {dataTransfer: data, bubbles: true, cancelable: true};
  document.querySelector(target).dispatchEvent(new DragEvent('drop', event));
}"""


@pytest.fixture(scope='module')
def page(package, tmp_path_factory):  # noqa: F811
  """The page, its service, and what the browser complained of."""
  log = tmp_path_factory.mktemp('service') / 'log'
  service = Service(package, log).wait()
  with sync_api.sync_playwright() as playwright:
    browser = playwright.chromium.launch(
      executable_path=CHROMIUM, args=['--no-sandbox']
    )
    page = browser.new_page(viewport={'width': 900, 'height': 640})
    complaints = []
    page.on('console', lambda message: complaints.append(message.text))
    page.on('pageerror', lambda error: complaints.append(str(error)))
    page.goto(service.address)
    yield page, service, complaints
    browser.close()
  if service.process.poll() is None:
    service.stop()


def names(page):
  page.wait_for_selector('#classes li')
  return page.locator('#classes li b').all_inner_texts()


def ranking(package, encoded):  # noqa: F811
  shares = expected(package, encoded)
  return sorted(shares, key=lambda name: -shares[name])[:5]


def test_an_image_that_is_dropped_is_classified(page, package, tmp_path):  # noqa: F811
  browser, _, complaints = page
  sync_api.expect(browser.locator('#what')).to_contain_text(
    '10 classes, 8 pixels'
  )
  encoded = picture(5)
  browser.evaluate(_DROP, ['#drop', 'some.png', list(encoded)])
  assert names(browser) == ranking(package, encoded)
  assert browser.evaluate("document.querySelector('#seen').naturalWidth") == 30
  assert not complaints


def test_one_that_is_chosen_too(page, package, tmp_path):  # noqa: F811
  browser, _, complaints = page
  browser.reload()
  encoded = picture(6, '.jpg')
  path = pathlib.Path(tmp_path / 'some.jpg')
  path.write_bytes(encoded)
  browser.set_input_files('#file', path)
  assert names(browser) == ranking(package, encoded)
  assert not complaints


def test_trouble_is_said(page):
  """Last: it ends the service."""
  browser, service, _ = page
  browser.evaluate(_DROP, ['#drop', 'a <b>.txt', [1, 2, 3]])
  sync_api.expect(browser.locator('#trouble')).to_have_text(
    'a <b>.txt: not a whole image.'
  )
  assert service.stop()[0] == 0
  browser.evaluate(_DROP, ['#drop', 'x.png', [1]])
  sync_api.expect(browser.locator('#trouble')).to_have_text(
    'The server does not answer.'
  )
