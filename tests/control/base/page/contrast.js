// The contrast of each colour that text has, on each that it stands on, with this sheet.
const sheet = document.createElement("style");
sheet.textContent = arguments[0];
document.head.append(sheet);
const colour = (name) => {
  const probe = document.createElement("p");
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  return getComputedStyle(probe).color.match(/[\d.]+/g).slice(0, 3).map((each) => {
    const part = each / 255;
    return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
};
const light = (name) => { const [r, g, b] = colour(name); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const found = {};
for (const text of ["fore", "faint", "bad", "slow", "fine"]) for (const back of ["back", "panel"]) {
  const [a, b] = [light(text), light(back)];
  found[`${text} on ${back}`] = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}
return found;
