// Elements that are made once and then changed only where they differ. No HTML from strings: everything shown is text.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes (`class` included) and children: nodes or strings. */
export function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) attr(node, name, value);
  node.append(...children);
  return node;
}

/** Sets an attribute if it differs; null or false removes it. */
export function attr(node, name, value) {
  if (value === null || value === false || value === undefined) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

/** Sets the text if it differs, and keeps the text node. */
export function text(node, value) {
  const wanted = String(value);
  if (node.firstChild?.nodeType === Node.TEXT_NODE && !node.firstChild.nextSibling) {
    if (node.firstChild.data !== wanted) node.firstChild.data = wanted;
  } else node.textContent = wanted;
}

/** Makes the children of `parent` those of `items`, in this order. A child lives for as long as its key. */
export function keyed(parent, items, keyOf, make, update) {
  const known = (parent.keyed ??= new Map());
  const seen = new Set();
  let place = parent.firstChild;
  for (const item of items) {
    const key = keyOf(item);
    if (seen.has(key)) continue;
    seen.add(key);
    let child = known.get(key);
    if (!child) known.set(key, (child = make(item)));
    update(child, item);
    if (child === place) place = place.nextSibling;
    else parent.insertBefore(child, place);
  }
  for (const [key, child] of known)
    if (!seen.has(key)) {
      child.remove();
      known.delete(key);
    }
}

export function stored(key, fallback) {
  try {
    return localStorage.getItem(key) ?? fallback;
  } catch {
    return fallback;
  }
}

export function store(key, value) {
  try {
    localStorage.setItem(key, value);
  } catch {
    // storage may be forbidden: the choice lasts until the page is closed
  }
}
