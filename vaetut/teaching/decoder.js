// Sets up the explorers of a decoder with this key: the network itself runs here, for any code, by mouse, finger or key.
// `decoder.py` puts this function and its call into a cell's output; the book's pages keep them in files of their own.
(key, [alt, limit, [rows, columns], tiles], [points, layers]) => {
  const read = (text, scale) => {
    const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
    return scale ? Float64Array.from(new Int8Array(bytes.buffer), n => n * scale) : new Float32Array(bytes.buffer);
  };
  const network = layers.map(([width, weight, weightScale, bias, biasScale, activation]) =>
    ({width, weight: read(weight, weightScale), bias: read(bias, biasScale), activation}));
  const functions = {relu: t => Math.max(0, t), tanh: Math.tanh, sigmoid: t => 1 / (1 + Math.exp(-t)), none: t => t};
  const decode = z => network.reduce((x, {width, weight, bias, activation}) => {
    const inner = x.length;
    return Float64Array.from({length: width}, (_, i) => {
      let sum = bias[i];
      for (let j = 0; j < inner; j++) sum += weight[i * inner + j] * x[j];
      return functions[activation](sum);
    });
  }, z);
  const paint = (context, pixels, left, top) => {
    const image = context.createImageData(columns, rows);
    pixels.forEach((value, i) => image.data.set([...Array(3).fill(Math.round(255 * (1 - value))), 255], 4 * i));
    context.putImageData(image, left, top);
  };
  const canvas = (width, height) => Object.assign(document.createElement("canvas"), {width, height});
  const write = value => (Math.round(value * 100) / 100).toFixed(2).replace("-0.00", "0.00").replace("-", "\u2212");

  for (const root of document.querySelectorAll(`[data-explorer="${key}"]`)) {
    root.querySelector(".vaetut-static")?.remove();
    root.querySelector(".vaetut-plane")?.remove(); // a page that a browser has saved
    const said = root.querySelector(".vaetut-said");
    const sliders = [...root.querySelectorAll("input")];
    const still = root.querySelector("img");
    const plane = document.createElement("div");
    plane.className = "vaetut-plane";
    const pad = plane.appendChild(document.createElement("div"));
    pad.className = "vaetut-pad";
    pad.setAttribute("aria-hidden", "true"); // the sliders do the same
    const digit = plane.appendChild(canvas(columns, rows));
    digit.className = "vaetut-digit";
    digit.setAttribute("role", "img");
    if (window.parent === window) root.style.setProperty("--vaetut-height", "max(160px, calc(100vh - 152px))");
    still.hidden = true;
    still.after(plane);

    const to = value => 50 + 50 * value / limit; // per cent of the pad
    if (tiles) {
      const map = pad.appendChild(canvas(tiles * columns, tiles * rows));
      const context = map.getContext("2d");
      const middle = i => limit * ((2 * i + 1) / tiles - 1);
      for (let row = 0; row < tiles; row++)
        for (let column = 0; column < tiles; column++)
          paint(context, decode([middle(column), -middle(row)]), column * columns, row * rows);
    }
    if (points.length) {
      const dots = points.map(([x, y]) => `M${to(x / 100).toFixed(2)} ${to(-y / 100).toFixed(2)}h0`).join("");
      pad.insertAdjacentHTML("beforeend", `<svg viewBox="0 0 100 100"><path d="M50 0V100M0 50H100"/><path class="vaetut-dots" d="${dots}"/></svg>`);
    }
    pad.insertAdjacentHTML("beforeend", `<i></i><span>z₁ →</span><span>z₂ ↑</span>`);
    const cross = pad.querySelector("i");
    const context = digit.getContext("2d");

    let code = sliders.map(slider => Number(slider.value));
    const show = () => {
      const pixels = decode(code);
      paint(context, pixels, 0, 0);
      const shown = code.map(write);
      sliders.forEach((slider, i) => {
        slider.setAttribute("aria-valuetext", shown[i]);
        root.querySelectorAll("output")[i].value = shown[i];
      });
      cross.style.left = to(code[0]) + "%";
      cross.style.top = to(-code[1]) + "%";
      digit.setAttribute("aria-label", alt.replace("{z_1}", shown[0]).replace("{z_2}", shown[1]));
      root.vaetutPixels = pixels; // for the test that holds them against torch's
    };
    const move = to => { // a slider stops at the nearest of its steps, the code does not
      code = to.map(value => Math.max(-limit, Math.min(limit, value)));
      sliders.forEach((slider, i) => { slider.value = code[i]; });
      show();
    };
    let before = null;
    const hold = () => { before = code; };
    const restore = () => { if (before) move(before); before = null; };
    const say = () => { said.textContent = digit.getAttribute("aria-label"); };
    sliders.forEach((slider, i) => {
      slider.addEventListener("input", () => {
        code = code.map((value, j) => i === j ? Number(slider.value) : value);
        show();
      });
      slider.addEventListener("change", say);
      slider.addEventListener("keydown", event => event.stopPropagation());
      // a finger that comes down on a slider and then scrolls the page leaves it as it was
      slider.addEventListener("pointerdown", hold);
      slider.addEventListener("pointercancel", restore);
    });
    const follow = event => {
      const box = pad.getBoundingClientRect();
      move([limit * (2 * (event.clientX - box.left) / box.width - 1), limit * (1 - 2 * (event.clientY - box.top) / box.height)]);
    };
    pad.addEventListener("pointerdown", event => {
      if (event.button) return;
      event.preventDefault();
      hold();
      pad.setPointerCapture?.(event.pointerId);
      follow(event);
    });
    pad.addEventListener("pointermove", event => { if (before && event.buttons) follow(event); });
    pad.addEventListener("pointerup", () => { before = null; say(); });
    pad.addEventListener("pointercancel", restore);
    show();
  }
}
