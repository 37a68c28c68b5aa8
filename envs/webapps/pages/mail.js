// Mail: boxes, letters, writing. "Delete all" empties the whole box that one is in.
"use strict";

(() => {
  const BOXES = ["inbox", "archive", "trash", "sent"];
  const mails = () => shell.data().mails;
  const title = (word) => word[0].toUpperCase() + word.slice(1);
  const put = (id, box, backs = 0) => shell.change((data) => { data.mails[id].box = box; }, backs);

  function deleteAll(box, backs = 0) {
    shell.change((data) => {
      for (const mail of Object.values(data.mails)) if (mail.box === box) mail.box = "trash";
    }, backs);
  }

  function star(id) {
    shell.change((data) => { data.mails[id].star = !data.mails[id].star; });
  }

  function write(kind, id) {
    const mail = mails()[id];
    shell.push({
      app: "mail", screen: "compose",
      draft: {
        to: kind === "reply" ? mail.from : "nobody", subject: id ? mail.subject : "",
        text: kind === "forward" ? mail.text : "",
      },
    });
  }

  function list(frame) {
    const tabs = BOXES.map((box) => shell.button(title(box), () => shell.replace({box}),
      box === frame.box ? "tab on" : "tab"));
    const rows = Object.entries(mails()).filter(([, mail]) => mail.box === frame.box)
      .map(([id, mail]) => shell.row(
        mail.subject, `${frame.box === "sent" ? `to ${mail.to}` : mail.from}${mail.star ? " ★" : ""}`,
        () => {
          mail.read = true;
          shell.push({app: "mail", screen: "mail", id});
        },
        {id, menu: true, swipe: () => put(id, "trash")}));
    const menu = (id) => [
      [mails()[id].star ? "Unstar" : "Star", () => star(id)],
      ["Archive", () => put(id, "archive")],
      ["Delete all", () => deleteAll(frame.box), "danger"],
      ["Delete", () => put(id, "trash"), "danger"],
    ];
    const nodes = [shell.make("div", {class: "tabs"}, ...tabs), ...rows];
    if (!rows.length) nodes.push(shell.text("Nothing here", "note"));
    nodes.push(shell.buttons(shell.button("Compose", () => write("new"), "main")));
    return {title: "Mail", nodes, menu};
  }

  function mail(frame) {
    const letter = mails()[frame.id];
    const acts = letter.box === "trash"
      ? [shell.button("Restore", () => put(frame.id, "inbox", 1))]
      : [
        shell.button("Reply", () => write("reply", frame.id), "main"),
        shell.button("Forward", () => write("forward", frame.id)),
        shell.button(letter.star ? "Unstar" : "Star", () => star(frame.id)),
        shell.button("Archive", () => put(frame.id, "archive", 1)),
        shell.button("Delete all", () => deleteAll(letter.box, 1), "danger"),
        shell.button("Delete", () => put(frame.id, "trash", 1), "danger"),
      ];
    return {
      title: letter.subject,
      nodes: [
        shell.text(`from ${letter.from}${letter.star ? " ★" : ""}`, "note"),
        shell.text(letter.text, "letter"), shell.buttons(...acts),
      ],
    };
  }

  function compose(frame) {
    const said = shell.draft({to: "nobody", subject: "", text: ""});
    const send = () => {
      const {to, subject, text} = frame.draft;
      if (to === "nobody") return;
      shell.change((data) => {
        data.mails[shell.fresh(data.mails)] =
          {box: "sent", from: "me", to, subject, text, star: false, read: true};
      }, 1);
    };
    return {
      title: said.to === "nobody" ? "New mail" : "Mail",
      nodes: [
        shell.choice("to", "To", ["nobody", ...Object.keys(shell.data().people)]),
        shell.field("subject", "Subject"), shell.field("text", "Text"),
        shell.buttons(shell.button("Send", send, "main"), shell.button("Discard", shell.back)),
      ],
    };
  }

  shell.define("mail", {
    title: "Mail", first: {screen: "list", box: "inbox"}, screens: {list, mail, compose},
  });
})();
