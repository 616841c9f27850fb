// plotly.js, loaded from this server once something is to be drawn, and how our plots look.

let loading = null;

export function plotly(file) {
  loading ??= new Promise((done, failed) => {
    const script = document.createElement("script");
    script.src = `static/${file}`;
    script.onload = () => done(window.Plotly);
    script.onerror = () => failed(new Error("plotly.js could not be loaded"));
    document.head.append(script);
  });
  return loading;
}

// Okabe & Ito's colours, told apart by colour-blind readers, lightened for a dark ground.
export const PALETTE = ["#56B4E9", "#E69F00", "#2fb98f", "#CC79A7", "#e07a3f", "#8f9df0"];
export const FAINT = "#4a5560";
export const CONFIG = { displayModeBar: false, responsive: true, scrollZoom: false, doubleClick: "reset", showTips: false };

export const axis = (more = {}) => ({
  color: "#8d99a6", gridcolor: "#20262d", linecolor: "#39424c", zeroline: false, ticks: "outside", ticklen: 3, tickcolor: "#39424c",
  tickfont: { size: 10 }, automargin: false, fixedrange: true, ...more,
});

export const sheet = (more = {}) => ({
  paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { family: "system-ui, sans-serif", size: 11, color: "#a9b4bf" },
  showlegend: false, hovermode: "closest", dragmode: false, hoverlabel: { bgcolor: "#1b2127", bordercolor: "#39424c", font: { size: 11 } }, ...more,
});

/** A band between two curves, as one closed shape for each stretch without a gap. */
export function band(x, low, high, colour, axes) {
  const xs = [], ys = [];
  let from = null;
  for (let i = 0; i <= x.length; i++) {
    const there = i < x.length && low[i] !== null && high[i] !== null;
    if (there && from === null) from = i;
    if (there || from === null) continue;
    if (xs.length) { xs.push(null); ys.push(null); }
    for (let k = from; k < i; k++) { xs.push(x[k]); ys.push(high[k]); }
    for (let k = i - 1; k >= from; k--) { xs.push(x[k]); ys.push(low[k]); }
    from = null;
  }
  return { x: xs, y: ys, fill: "toself", fillcolor: colour + "38", line: { width: 0 }, mode: "lines", hoverinfo: "skip", showlegend: false, ...axes };
}
