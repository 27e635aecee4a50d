// explore.py fills in the two names between underscores. There are no globals. When one output stands on a page twice, each
// script sets up both copies: what it does bears repeating.
(() => {
  const [labels, alts, frames] = __DATA__;
  for (const root of document.querySelectorAll('[data-explorer="__KEY__"]')) {
    root.querySelector(".vaetut-static")?.remove();
    const image = root.querySelector("img");
    const said = root.querySelector(".vaetut-said");
    const rows = [...root.querySelector(".vaetut-controls").children].map(row => ({
      inputs: [...row.querySelectorAll("input")], output: row.querySelector("output")}));
    // Picture and sliders are in view together, also at a zoom of 200 %. A frame inside the page, as in Colab,
    // takes its height from what it holds, so there the picture must not take its own from the frame.
    if (window.parent === window)
      root.style.setProperty("--vaetut-height", `max(160px, calc(100vh - ${44 * rows.length + 64}px))`);
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
      image.src = "data:image/webp;base64," + frames[frame];
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
  }
})();
