"""People in a real browser, Debian's Chromium driven by Playwright, who use the pages and the editor of a lab host."""
