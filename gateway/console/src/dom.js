// Making elements. Text is always text: nothing here, or anywhere in the console, parses markup.

/** The element of the page with this id. */
export const $ = (id) => document.getElementById(id);

/** An element: `el("p.notice", { id: "x" }, "text", other)`. Children that are null are left out. */
export function el(name, attributes = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  const made = document.createElement(tag);
  return fill(made, classes, attributes, children);
}

/** The same in SVG. */
export function svg(name, attributes = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  return fill(made, classes, attributes, children);
}

function fill(made, classes, attributes, children) {
  for (const name of classes) made.classList.add(name);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
}

/** Sets a text only when it differs: screen readers say again whatever is set. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
