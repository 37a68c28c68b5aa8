"""Tasks whose page must be loaded anew for each episode, because it remembers the one before, and
tasks that need the margin which the viewport had in the package's own driver.

The first were found by playing seeds of every task with random clicks in one page, beside a page
that was loaded anew for each seed: these are the tasks in which starts or steps ever differed
(`test_every_task_is_the_same_again` plays them all).
"""

RELOADED = frozenset(
    {
        "book-flight",
        "book-flight-nodelay",
        "chase-circle",
        "choose-date",
        "choose-date-easy",
        "choose-date-medium",
        "click-pie",
        "drag-cube",
        "email-inbox",
        "email-inbox-delete",
        "email-inbox-forward",
        "email-inbox-forward-nl",
        "email-inbox-forward-nl-turk",
        "email-inbox-important",
        "email-inbox-nl-turk",
        "email-inbox-noscroll",
        "email-inbox-reply",
        "email-inbox-star-reply",
        "form-sequence",
        "form-sequence-3",
        "moving-items",
        "order-food",
        "simon-says",
        "social-media",
        "stock-market",
        "use-autocomplete",
        "use-autocomplete-nodelay",
        "use-colorwheel",
        "use-colorwheel-2",
        "use-slider",
        "use-slider-2",
        "use-spinner",
    }
)
WIDE = frozenset({"click-dialog", "moving-items", "terminal"})
"""Where the viewport ends with the screen these put something elsewhere, or list something else: of
three seeds and three random turns of every task, with a margin and without, they alone differed."""
