"""The application: an address book in one Tk window, with a list and a form.

It is run by a Python that has tkinter, which need not be the one of this package, and imports
nothing of it. It reads a JSON object a line from its input and answers each by one:

    {"set": STATE}      take this state on; the answer is as to `look`
    {"look": true}      the state, and the elements of the window in the order of the widget tree

All that it holds is in `Book.state`: the contacts, which one is selected, what the form holds, and
which widget has the focus.
"""

from __future__ import annotations

import json
import sys
import time
import tkinter as tk
from typing import Any

STILL_S = 0.015
"""Between two looks that have to be equal."""
LONGEST_S = 2.0
KINDS = ("home", "work")
BLANK: dict[str, Any] = {"name": "", "phone": "", "kind": "home", "star": False}
FONT = ("DejaVu Sans", 11)


class Book:
    """The window."""

    def __init__(self, root: tk.Tk, width: int, height: int) -> None:
        self.root = root
        root.geometry(f"{width}x{height}+0+0")
        root.option_add("*Font", FONT)
        self.contacts: list[dict[str, Any]] = []
        self.selected: int | None = None
        self.kind, self.star = tk.StringVar(value="home"), tk.BooleanVar()
        self.rows = tk.Listbox(root, name="rows", exportselection=False, height=12, width=22)
        self.rows.place(x=12, y=12, width=230, height=height - 72)
        self.rows.bind("<<ListboxSelect>>", lambda _: self._select())
        self.fields: dict[str, tk.Entry] = {}
        for at, name in enumerate(("name", "phone")):
            tk.Label(root, text=name.title(), name=f"label_{name}").place(x=262, y=14 + 40 * at)
            entry = tk.Entry(root, name=name, insertofftime=0)
            entry.place(x=330, y=12 + 40 * at, width=width - 350)
            for keys in ("<Control-a>", "<Control-A>"):
                entry.bind(keys, self._select_all)
            self.fields[name] = entry
        for at, name in enumerate(KINDS):
            tk.Radiobutton(
                root, text=name.title(), name=name, variable=self.kind, value=name
            ).place(x=330 + 90 * at, y=92)
        tk.Checkbutton(root, text="Starred", name="star", variable=self.star).place(x=330, y=126)
        self._buttons(height)

    def _buttons(self, height: int) -> None:
        row = (("new", "New"), ("delete", "Delete"), ("clear", "Delete all"))
        for at, (name, text) in enumerate(row):
            x, width = (12, 60) if at == 0 else (78, 70) if at == 1 else (154, 88)
            button = tk.Button(self.root, text=text, name=name, command=getattr(self, f"_{name}"))
            button.place(x=x, y=height - 50, width=width, height=34)
        save = tk.Button(self.root, text="Save", name="save", command=self._save)
        save.place(x=330, y=170, width=90, height=34)

    # --- what the buttons do ------------------------------------------------------------------

    def _select_all(self, event: Any) -> str:
        event.widget.select_range(0, "end")
        event.widget.icursor("end")
        return "break"

    def _select(self) -> None:
        chosen: Any = self.rows.curselection()  # type: ignore[no-untyped-call]
        if chosen:
            self.selected = int(chosen[0])
            self._fill(self.contacts[self.selected])

    def _new(self) -> None:
        self.selected = None
        self._fill(BLANK)
        self._list()
        self.fields["name"].focus_set()

    def _delete(self) -> None:
        if self.selected is not None:
            del self.contacts[self.selected]
            self._new()

    def _clear(self) -> None:
        self.contacts = []
        self._new()

    def _save(self) -> None:
        draft = self._draft()
        if not draft["name"]:
            return
        if self.selected is None:
            self.contacts.append(draft)
            self.selected = len(self.contacts) - 1
        else:
            self.contacts[self.selected] = draft
        self._list()

    # --- state --------------------------------------------------------------------------------

    def _draft(self) -> dict[str, Any]:
        texts = {name: entry.get().strip() for name, entry in self.fields.items()}
        return {**texts, "kind": self.kind.get(), "star": bool(self.star.get())}

    def _fill(self, contact: dict[str, Any]) -> None:
        for name, entry in self.fields.items():
            entry.delete(0, "end")
            entry.insert(0, contact[name])
        self.kind.set(contact["kind"])
        self.star.set(contact["star"])

    def _list(self) -> None:
        self.rows.delete(0, "end")
        for one in self.contacts:
            star = "* " if one["star"] else ""
            self.rows.insert("end", f"{star}{one['name']} {one['phone']} ({one['kind']})")
        if self.selected is not None:
            self.rows.selection_set(self.selected)
            self.rows.see(self.selected)

    @property
    def state(self) -> dict[str, Any]:
        """All that the application holds."""
        focus = self.root.focus_get()
        return {
            "contacts": self.contacts,
            "selected": self.selected,
            "draft": self._draft(),
            "focus": "" if focus is None else focus.winfo_name(),
        }

    def set(self, state: dict[str, Any]) -> None:
        """Take a state on."""
        self.contacts = [dict(one) for one in state["contacts"]]
        self.selected = state["selected"]
        self._list()
        self._fill(state["draft"])
        names = {child.winfo_name(): child for child in self.root.winfo_children()}
        self.root.focus_force()
        names.get(state["focus"], self.root).focus_set()

    # --- elements -----------------------------------------------------------------------------

    def elements(self) -> list[dict[str, Any]]:
        """What can be seen or used, with boxes in pixels of the screen."""
        found = []
        for widget in self.root.winfo_children():
            name, kind = widget.winfo_name(), widget.winfo_class().lower()
            left, top = widget.winfo_rootx(), widget.winfo_rooty()
            box = [left, top, widget.winfo_width(), widget.winfo_height()]
            if isinstance(widget, tk.Listbox):
                found += self._rows(left, top)
                continue
            one = {"key": name, "tag": kind, "text": "", "value": "", "states": [], "box": box}
            if isinstance(widget, tk.Entry):
                one |= {"value": widget.get(), "name": name.title()}
            else:
                one["text"] = str(widget.cget("text"))
            if (kind, self.kind.get()) == ("radiobutton", name) or (
                kind == "checkbutton" and self.star.get()
            ):
                one["states"] = ["checked"]
            if self.root.focus_get() is widget:
                one["states"] = [*one["states"], "focused"]
            found.append(one)
        return found

    def _rows(self, left: int, top: int) -> list[dict[str, Any]]:
        found = []
        for at in range(len(self.contacts)):
            place = self.rows.bbox(at)
            if place is None:
                continue
            x, y, _, height = place
            box = [left + x, top + y, self.rows.winfo_width() - 2 * x, height]
            states = ["selected"] if at == self.selected else []
            text = str(self.rows.get(at))
            found.append(
                {
                    "key": f"row {at}",
                    "tag": "row",
                    "text": text,
                    "value": "",
                    "states": states,
                    "box": box,
                }
            )
        return found

    def look(self) -> dict[str, Any]:
        """State and elements, once two looks are the same: events may still be on their way."""
        until = time.monotonic() + LONGEST_S
        before: object = None
        while True:
            self.root.winfo_pointerxy()  # a way to the server and back
            self.root.update()
            now = {"state": self.state, "elements": self.elements()}
            if now == before or time.monotonic() > until:
                return now
            before = json.loads(json.dumps(now))
            time.sleep(STILL_S)


def main(width: int, height: int) -> None:
    """Answer until the input ends."""
    root = tk.Tk()
    book = Book(root, width, height)
    root.update()

    def answer(*_: object) -> None:
        line = sys.stdin.readline()
        if not line:
            root.destroy()
            return
        asked = json.loads(line)
        if "set" in asked:
            book.set(asked["set"])
        sys.stdout.write(json.dumps(book.look()) + "\n")
        sys.stdout.flush()

    root.tk.createfilehandler(sys.stdin, tk.READABLE, answer)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    root.mainloop()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
