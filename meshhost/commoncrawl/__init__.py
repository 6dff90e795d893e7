"""`meshagent.commoncrawl`: importing the pages of Common Crawl. It stays out; every name of it says what to use instead."""

from meshhost.elsewhere import names_elsewhere

__getattr__ = names_elsewhere(
    __name__, {}, {"*": "fetch the pages in a program of your own, or let a SiteIndexer read the site"}
)
