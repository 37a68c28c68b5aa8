// Shop: a search, goods, a cart, orders. "Buy now" orders at once, past the cart.
"use strict";

(() => {
  const SHOWN = 4;  // goods on the first page; the others must be searched for
  const goods = () => shell.data().goods;
  const price = (good) => good.price.toFixed(2);
  const toCart = () => shell.push({app: "shop", screen: "cart"});

  function order(data, items, shipping) {
    data.orders[shell.fresh(data.orders)] = {
      items: items.map(([id, count]) => `${count} ${data.goods[id].name}`).sort().join(", "),
      shipping,
    };
  }

  function results(query) {
    const all = Object.entries(goods());
    const words = query.trim().toLowerCase();
    return words ? all.filter(([, good]) => good.name.includes(words)) : all.slice(0, SHOWN);
  }

  function list(frame) {
    shell.draft({query: frame.query || ""});
    const search = () => shell.replace({query: frame.draft.query});
    const found = results(frame.query || "");
    const count = Object.values(shell.data().cart).reduce((sum, n) => sum + n, 0);
    return {
      title: "Shop",
      nodes: [
        shell.make("div", {class: "search"}, shell.field("query", "Search goods", {enter: search}),
          shell.button("Search", search)),
        ...found.map(([id, good]) => shell.row(good.name, price(good),
          () => shell.push({app: "shop", screen: "good", id}))),
        found.length ? null : shell.text("Nothing found", "note"),
        shell.buttons(shell.button(`Cart ${count}`, toCart, "main")),
      ],
    };
  }

  function good(frame) {
    shell.draft({count: "1"});
    const thing = goods()[frame.id];
    const add = () => shell.change((data) => {
      data.cart[frame.id] = (data.cart[frame.id] || 0) + Number(frame.draft.count);
    }, 1);
    const buy = () => shell.change((data) =>
      order(data, [[frame.id, Number(frame.draft.count)]], "standard"), 1);
    return {
      title: thing.name,
      nodes: [
        shell.text(`price ${price(thing)}`, "note"),
        shell.choice("count", "Count", ["1", "2", "3", "4", "5"]),
        shell.buttons(shell.button("Buy now", buy, "main"),
          shell.button("Add to cart", add)),
      ],
    };
  }

  function cart() {
    const items = Object.entries(shell.data().cart);
    const remove = (id) => shell.change((data) => { delete data.cart[id]; });
    const rows = items.map(([id, count]) => shell.row(`Remove ${goods()[id].name}`, `x${count}`,
      () => remove(id)));
    return {
      title: "Cart",
      nodes: items.length ? [
        ...rows,
        shell.buttons(
          shell.button("Empty cart", () => shell.change((data) => { data.cart = {}; }), "danger"),
          shell.button("Checkout", () => shell.push({app: "shop", screen: "checkout"}), "main")),
      ] : [shell.text("The cart is empty", "note")],
    };
  }

  function checkout(frame) {
    shell.draft({shipping: "standard"});
    const items = Object.entries(shell.data().cart);
    const total = items.reduce((sum, [id, count]) => sum + goods()[id].price * count, 0);
    const place = () => shell.change((data) => {
      order(data, Object.entries(data.cart), frame.draft.shipping);
      data.cart = {};
    }, 2);
    return {
      title: "Checkout",
      nodes: [
        shell.text(`total ${total.toFixed(2)}`, "note"),
        shell.choice("shipping", "Shipping", ["standard", "express", "pickup"]),
        shell.buttons(shell.button("Place order", place, "main"),
          shell.button("Cancel", shell.back)),
      ],
    };
  }

  shell.define("shop", {title: "Shop", first: {screen: "list", query: ""}, screens: {list, good, cart, checkout}});
})();
