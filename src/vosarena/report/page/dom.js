"use strict";
// Shared by the report and the site: elements, and tables that DataTables sorts and filters.
window.dom = (() => {
  const $ = (id) => document.getElementById(id);
  function el(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else if (value !== undefined && value !== false && value !== null) node.setAttribute(key, value === true ? "" : value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  }
  const options = (select, values, titles) => {
    const before = select.value;
    select.replaceChildren(...values.map((value, i) => el("option", { value }, titles ? titles[i] : value)));
    if (values.includes(before)) select.value = before;
  };

  const LAYOUT = { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null };
  const PLAIN = { autoWidth: false, info: false, layout: LAYOUT, order: [], paging: false };

  DataTable.ext.errMode = "throw";
  // Missing values come last in both directions.
  const compare = (sign) => (a, b) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (typeof a === "string" ? a.localeCompare(b) : a - b);
  };
  DataTable.ext.type.order["known-asc"] = compare(1);
  DataTable.ext.type.order["known-desc"] = compare(-1);

  const node = (shown) => (shown instanceof Node ? shown : document.createTextNode(shown ?? "")); // DataTables reads strings as HTML

  // A table that is wider than the page says so until its end is reached.
  function hint(region) {
    const more = () => {
      const hidden = region.scrollWidth - region.clientWidth;
      region.classList.toggle("wide", hidden > 4);
      region.classList.toggle("more", hidden - region.scrollLeft > 4);
    };
    region.addEventListener("scroll", more, { passive: true });
    const size = new ResizeObserver(more);
    size.observe(region);
    new MutationObserver(() => [...region.children].forEach((child) => size.observe(child))).observe(region, { childList: true });
    [...region.children].forEach((child) => size.observe(child));
  }
  document.querySelectorAll(".scroll[role=region]").forEach(hint);
  return { $, el, options, node, PLAIN };
})();
