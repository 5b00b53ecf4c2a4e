"use strict";
(() => {
  const COLOURS = {
    light: {
      blue: "#2b6cd4", orange: "#e08a1e", green: "#23915a", red: "#cf3030", purple: "#8a4fc9", teal: "#0f98a8",
      grey: "#8a93a0", text: "#1c2430", soft: "#5a6575", grid: "#e6e9ee", card: "#ffffff",
      heat: [[0, "#f3f6fb"], [0.25, "#b9d1f2"], [0.5, "#5f97dd"], [0.75, "#2458a6"], [1, "#0b1f4b"]],
    },
    dark: {
      blue: "#6ea8ff", orange: "#ffb454", green: "#5fd39a", red: "#ff7b72", purple: "#c39bff", teal: "#4fd6e3",
      grey: "#8793a5", text: "#e5e9f0", soft: "#9aa6b6", grid: "#2b3442", card: "#181e27",
      heat: [[0, "#141b26"], [0.25, "#233f6b"], [0.5, "#3f77c4"], [0.75, "#8fbcff"], [1, "#f4f9ff"]],
    },
  };
  // Width of A4 between the margins, in CSS pixels.
  const PAPER = 690;
  const root = document.documentElement;
  const plots = JSON.parse(document.getElementById("plots").textContent);
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  const touched = matchMedia("(pointer: coarse)").matches;
  let chosen = null;
  let printing = false;
  let linking = false;

  const theme = () => (printing ? "light" : chosen ?? (prefersDark.matches ? "dark" : "light"));
  const place = (plot) => document.getElementById(`plot-${plot.id}`);

  // Names of colours become colours. The plotting library changes what it is given: all is copied.
  function coloured(value, colours) {
    if (typeof value === "string") return value[0] === "@" ? colours[value.slice(1)] ?? value : value;
    if (Array.isArray(value)) return value.map((one) => coloured(one, colours));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, key === "text" || key === "hovertext" ? one : coloured(one, colours)]));
  }

  function layoutOf(plot, view) {
    const colours = COLOURS[theme()];
    const layout = coloured(view.layout, colours);
    const narrow = !printing && place(plot).clientWidth < 520;
    for (const key of Object.keys(layout).filter((key) => /^[xy]axis/.test(key))) {
      layout[key] = { gridcolor: colours.grid, linecolor: colours.grid, tickcolor: colours.grid, zeroline: false, automargin: true, ...layout[key] };
    }
    if (layout.xaxis === undefined) layout.xaxis = { automargin: true };
    const clear = "rgba(0,0,0,0)";
    return {
      ...layout,
      autosize: !printing,
      width: printing ? PAPER : undefined,
      uirevision: plot.shown,
      dragmode: touched ? false : "zoom",
      margin: { l: narrow ? 44 : 60, r: narrow ? 8 : 16, t: touched ? 34 : 12, b: 44 },
      paper_bgcolor: clear,
      plot_bgcolor: clear,
      font: { family: "system-ui, -apple-system, Segoe UI, Roboto, DejaVu Sans, sans-serif", size: narrow ? 11 : 12, color: colours.text },
      hoverlabel: { bgcolor: colours.card, bordercolor: colours.grid, font: { color: colours.text }, align: "left", namelength: 40 },
      legend: { orientation: "h", x: 0, bgcolor: clear, ...(narrow ? { yref: "container", y: 0, yanchor: "bottom" } : { y: 1.02, yanchor: "bottom" }) },
      modebar: { bgcolor: clear, color: colours.soft, activecolor: colours.text, orientation: "h" },
    };
  }

  const config = {
    responsive: true,
    displaylogo: false,
    showTips: false,
    displayModeBar: touched ? true : "hover",
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "toggleSpikelines"],
    doubleClick: "reset+autosize",
  };

  function draw(plot) {
    const view = plot.views[plot.shown];
    return Plotly.react(place(plot), coloured(view.data, COLOURS[theme()]), layoutOf(plot, view), config);
  }

  // Plots over the same time show the same part of it.
  function link(plot) {
    place(plot).on("plotly_relayout", (change) => {
      if (linking || !plot.over_time) return;
      const [from, to] = change["xaxis.range"] ?? [change["xaxis.range[0]"], change["xaxis.range[1]"]];
      const update = from !== undefined ? { "xaxis.range": [from, to] } : change["xaxis.autorange"] ? { "xaxis.autorange": true } : null;
      if (!update) return;
      linking = true;
      const others = plots.filter((other) => other !== plot && other.over_time && other.drawn);
      Promise.all(others.map((other) => Plotly.relayout(place(other), { ...update }))).finally(() => { linking = false; });
    });
  }

  function show(plot, index) {
    plot.shown = index;
    for (const words of document.querySelectorAll(`#figure-${plot.id} [data-view]`)) words.hidden = Number(words.dataset.view) !== index;
    const words = document.querySelector(`#figure-${plot.id} [data-view="${index}"] .summary`);
    const heading = document.querySelector(`#figure-${plot.id} h3`);
    place(plot).setAttribute("aria-label", `Plot: ${heading.textContent}. ${words.textContent}`);
    draw(plot);
  }

  const redraw = () => plots.filter((plot) => plot.drawn).forEach(draw);

  function print(on) {
    if (printing === on) return;
    printing = on;
    redraw();
  }

  function themeButton() {
    const button = document.getElementById("theme");
    const words = () => { button.textContent = theme() === "dark" ? "Light" : "Dark"; };
    button.hidden = false;
    words();
    button.addEventListener("click", () => {
      chosen = theme() === "dark" ? "light" : "dark";
      root.dataset.theme = chosen;
      words();
      redraw();
    });
    prefersDark.addEventListener("change", () => { words(); redraw(); });
  }

  // The library is checked by its digest when it becomes a script.
  async function unpack() {
    const packed = Uint8Array.from(atob(document.getElementById("library").textContent), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
    if (!window.Plotly) throw new Error("the plotting library did not start");
  }

  async function start() {
    themeButton();
    for (const choice of document.querySelectorAll("select[data-plot]")) {
      choice.addEventListener("change", () => show(plots.find((plot) => plot.id === choice.dataset.plot), Number(choice.value)));
    }
    addEventListener("beforeprint", () => print(true));
    addEventListener("afterprint", () => print(false));
    matchMedia("print").addEventListener("change", (query) => print(query.matches));
    await unpack();
    for (const plot of plots) {
      plot.shown = 0;
      await draw(plot);
      plot.drawn = true;
      link(plot);
      // Lets the page be scrolled and read between two plots.
      await new Promise((done) => setTimeout(done));
    }
    root.dataset.drawn = String(plots.length);
  }

  start().catch((error) => {
    for (const plot of document.querySelectorAll(".plot")) {
      if (!plot.hasChildNodes()) plot.textContent = `This plot cannot be drawn: ${error.message}. A browser of 2023 or newer is needed.`;
    }
    root.dataset.failed = error.message;
  });
})();
