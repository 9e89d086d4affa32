// Measures the page in the frame from outside: what sticks out, how headings lie, how texts stand out from their ground.
const luminance = (rgb) => {
  const [r, g, b] = rgb.map((c) => { c /= 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const parse = (colour) => colour.match(/[\d.]+/g).map(Number);
document.getElementById('f').addEventListener('load', () => {
  const frame = document.getElementById('f').contentWindow, page = frame.document, root = page.documentElement;
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const [r, g, b, a] = parse(frame.getComputedStyle(at).backgroundColor);
      if (a === undefined || a === 1) return [r, g, b];
    }
    return [255, 255, 255];
  };
  page.querySelectorAll('details').forEach((details) => { details.open = true; });
  const out = { width: root.clientWidth, scroll: root.scrollWidth, height: root.scrollHeight };
  out.sticking_out = [...page.body.querySelectorAll('*')]
    .filter((element) => element.getBoundingClientRect().right > root.clientWidth + 0.5)
    .map((element) => `${element.tagName} ${element.textContent.slice(0, 40)}`).slice(0, 5);
  out.contrast = { least: 99, text: '' };
  const texts = page.createTreeWalker(page.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const text = texts.currentNode.textContent.trim(), element = texts.currentNode.parentElement;
    if (!text) continue;
    const [a, b] = [parse(frame.getComputedStyle(element).color).slice(0, 3), ground(element)].map(luminance);
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < out.contrast.least) out.contrast = { least: ratio, text };
  }
  const box = (element) => { const r = element.getBoundingClientRect(); return { left: r.left, top: r.top, width: r.width, height: r.height }; };
  out.headings = [...page.querySelectorAll('h1, h2, caption')].map((element) => ({ tag: element.tagName, text: element.textContent, ...box(element) }));
  out.figures = [...page.querySelectorAll('figure')].map(box);
  out.banner = { ...box(page.querySelector('.banner')), colour: frame.getComputedStyle(page.querySelector('.banner')).backgroundColor };
  out.ground = frame.getComputedStyle(page.body).backgroundColor;
  out.fetched = frame.performance.getEntriesByType('resource').length;
  out.scripts = page.querySelectorAll('script, img, link, iframe, object, embed, form, [style], [onload]').length;
  out.unscoped = page.querySelectorAll('th:not([scope])').length;
  out.headless_tables = [...page.querySelectorAll('table')].filter((table) => !table.caption && !table.closest('details') || !table.tHead).length;
  out.cells = page.querySelectorAll('td, th, dd, li').length;
  out.styled = page.styleSheets.length;
  document.getElementById('out').textContent = JSON.stringify(out);
});
