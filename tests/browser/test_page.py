"""The whole page: accessible in both themes, usable on a phone, silent on the network."""

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser.conftest import DESKTOP, PHONE


@pytest.mark.parametrize(("viewport", "dark"), [(DESKTOP, False), (PHONE, True)], ids=["desktop-light", "phone-dark"])
def test_axe_finds_nothing_serious_on_any_tab(open_page, viewport, dark):
    page = open_page(viewport, dark)
    for tab in page.get_by_role("tab").all():
        tab.click()
        page.wait_for_timeout(150)
        found = Axe().run(page).response["violations"]
        bad = [
            (one["id"], one["nodes"][0]["target"], one["nodes"][0]["failureSummary"])
            for one in found
            if one["impact"] in ("serious", "critical")
        ]
        assert bad == [], tab.inner_text()


def test_a_phone_needs_no_sideways_scrolling(open_page):
    page = open_page(PHONE)
    for tab in page.get_by_role("tab").all():
        tab.click()
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], tab.inner_text()


def test_dark_and_light_differ_and_are_readable(open_page):
    colours = []
    for dark in (False, True):
        page = open_page(dark=dark)
        colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours[0] != colours[1]
