// Sets up the explorers with this key: sliders and radio buttons choose the frame. `explore.py` puts this function and
// its call into a cell's output; the book's pages have the function once, and load the call when a reader comes near.
// There are no globals. When one output stands on a page twice, both are set up at once, and once.
(key, [labels, alts], [[width, height], shared, parts, frames]) => {
  const unit = 10;
  const size = `width='${width}' height='${height}' viewBox='0 0 ${width * unit} ${height * unit}'`;
  const picture = frame => "data:image/svg+xml," + encodeURIComponent(
    `<svg xmlns='http://www.w3.org/2000/svg' ${size}><defs>${shared}</defs>${frames[frame].map(i => parts[i]).join("")}</svg>`);
  for (const root of document.querySelectorAll(`[data-explorer="${key}"]`)) {
    root.querySelector(".vaetut-static")?.remove();
    const image = root.querySelector("img");
    const said = root.querySelector(".vaetut-said");
    const rows = [...root.querySelector(".vaetut-controls").children].map(row => ({
      inputs: [...row.querySelectorAll("input")], output: row.querySelector("output")}));
    // Picture and sliders are in view together, also at a zoom of 200 %. A frame inside the page, as in Colab,
    // takes its height from what it holds, so there the picture must not take its own from the frame.
    if (window.parent === window)
      root.style.setProperty("--vaetut-height", `max(160px, calc(100vh - ${44 * rows.length + 64}px))`);
    let shown = alts.indexOf(image.alt);
    const show = () => {
      let frame = 0;
      rows.forEach(({inputs, output}, axis) => {
        const place = output ? Number(inputs[0].value) : Math.max(0, inputs.findIndex(input => input.checked));
        frame = frame * labels[axis].length + place;
        if (output) {
          inputs[0].setAttribute("aria-valuetext", labels[axis][place]);
          output.value = labels[axis][place];
        }
      });
      if (frame === shown) return;
      shown = frame;
      image.src = picture(frame);
      image.alt = alts[frame];
    };
    for (const {inputs, output} of rows) {
      const name = "vaetut-" + Math.random().toString(36).slice(2); // radio buttons of one copy form a group
      let before = null;
      for (const input of inputs) {
        if (!output && !input.name) input.name = name;
        input.addEventListener("input", show);
        input.addEventListener("change", () => { said.textContent = image.alt; });
        input.addEventListener("keydown", event => event.stopPropagation());
        if (output) {
          // a finger that comes down on a slider and then scrolls the page leaves it as it was
          input.addEventListener("pointerdown", () => { before = input.value; });
          input.addEventListener("pointercancel", () => {
            if (before !== null) input.value = before;
            show();
          });
        }
      }
    }
    show(); // a reader may have been quicker than the frames
  }
}
