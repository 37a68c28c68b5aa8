// Files in four folders. A long press (or a right click) opens a file's menu; deleting is final.
"use strict";

(() => {
  const FOLDERS = ["Documents", "Downloads", "Music", "Pictures"];
  const files = () => shell.data().files;
  const within = (folder) => Object.entries(files()).filter(([, file]) => file.folder === folder);

  function list() {
    return {
      title: "Files",
      nodes: FOLDERS.map((folder) => shell.row(folder, `${within(folder).length} files`,
        () => shell.push({app: "files", screen: "folder", id: folder}))),
    };
  }

  // What can be done with a file, from a frame `backs` steps behind where it is done.
  function acts(id, backs) {
    const {folder} = files()[id];
    const copy = (data) => { data.files[shell.fresh(data.files)] = {...data.files[id]}; };
    const clear = (data) => { for (const [key] of within(folder)) delete data.files[key]; };
    const go = (screen) => () => {
      shell.top().menu = null;
      shell.push({app: "files", screen, id});
    };
    return [
      ["Rename", go("rename")], ["Move", go("move")],
      ["Copy", () => shell.change(copy, backs)],
      ["Delete all", () => shell.change(clear, backs), "danger"],
      ["Delete", () => shell.change((data) => { delete data.files[id]; }, backs), "danger"],
    ];
  }

  function folder(frame) {
    const rows = within(frame.id).map(([id, file]) => shell.row(file.name, "",
      () => shell.push({app: "files", screen: "file", id}), {id, menu: true}));
    return {
      title: frame.id, menu: (id) => acts(id, 0),
      nodes: rows.length ? rows : [shell.text("Nothing here", "note")],
    };
  }

  function file(frame) {
    const {name, folder: where} = files()[frame.id];
    return {
      title: name,
      nodes: [
        shell.text(`in ${where}`, "note"),
        shell.buttons(...acts(frame.id, 1).map(([label, act, kind]) => shell.button(label, act, kind))),
      ],
    };
  }

  // Back to the folder, past the file's own page if that is where one came from.
  function keep(frame, alter) {
    const backs = shell.below().screen === "file" ? 2 : 1;
    shell.change((data) => alter(data.files[frame.id]), backs);
  }

  function rename(frame) {
    shell.draft({name: files()[frame.id].name});
    const save = () => {
      const name = frame.draft.name.trim();
      if (name) keep(frame, (file) => { file.name = name; });
    };
    return {
      title: "Rename",
      nodes: [shell.field("name", "Name", {enter: save}),
        shell.buttons(shell.button("Save", save, "main"), shell.button("Cancel", shell.back))],
    };
  }

  function move(frame) {
    shell.draft({folder: files()[frame.id].folder});
    const save = () => keep(frame, (file) => { file.folder = frame.draft.folder; });
    return {
      title: "Move",
      nodes: [shell.choice("folder", "Folder", FOLDERS),
        shell.buttons(shell.button("Move here", save, "main"), shell.button("Cancel", shell.back))],
    };
  }

  shell.define("files", {title: "Files", first: {screen: "list"}, screens: {list, folder, file, rename, move}});
})();
