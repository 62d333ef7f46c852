// The world as the console's chart shows it: the land as a grid of dots, the regions as points, all in one flat
// frame.

import { geoEqualEarth, geoContains } from "d3-geo";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { feature } from "topojson-client";

const WIDTH = 960;
/** Degrees of latitude shown: to the north of Greenland's inhabited coast, to the south of Cape Horn. */
const NORTH = 74;
const SOUTH = -56;
/** Distance between neighbouring dots. */
const STEP = 8.4;
/** Between the outermost dots and the edge. */
const MARGIN = 6;

/** Where D1's regions are on the chart: a large city of each. Longitude, latitude. */
const PLACES = {
  WNAM: [-119, 37],
  ENAM: [-77.5, 39],
  WEUR: [2.5, 48.8],
  EEUR: [24, 52.2],
  APAC: [103.8, 1.4],
  OC: [149, -33.5],
  SAM: [-47, -23],
  AFR: [27, -26],
  ME: [54, 24.5],
};

export async function land() {
  const path = createRequire(import.meta.url).resolve("world-atlas/land-110m.json");
  const topology = JSON.parse(await readFile(path, "utf8"));
  const shape = feature(topology, topology.objects.land);
  // Turned a little, so that the Bering Strait is not cut.
  const projection = geoEqualEarth().rotate([-11, 0]).scale(1).translate([0, 0]).precision(0.1);
  const east = projection([11 + 179.9, 0])[0];
  const scale = WIDTH / (2 * east);
  const top = projection([11, NORTH])[1] * scale;
  const bottom = projection([11, SOUTH])[1] * scale;
  projection.scale(scale).translate([WIDTH / 2, -top]);
  const height = Math.round(bottom - top);

  const found = [];
  const row = (STEP * Math.sqrt(3)) / 2;
  for (let line = 0, y = row / 2; y < height; line += 1, y += row) {
    for (let x = line % 2 ? STEP / 2 : STEP; x < WIDTH; x += STEP) {
      const place = projection.invert([x, y]);
      // Beyond the edge of the world there are no places: they do not lead back to where they came from.
      const back = projection(place);
      const isPlace = Math.hypot(back[0] - x, back[1] - y) < 1;
      if (isPlace && geoContains(shape, place)) found.push([x, y]);
    }
  }
  // Of the Pacific as much is left out as has no land.
  const across = found.map(([x]) => x);
  const [west, width] = [Math.min(...across) - MARGIN, Math.max(...across) - Math.min(...across) + 2 * MARGIN];
  const shown = ([x, y]) => [round(x - west), round(y)];
  const dots = found.map(shown).map(([x, y]) => `M${x} ${y}h0`);
  const places = Object.entries(PLACES).map(([name, place]) => [name, shown(projection(place))]);
  return { width: Math.round(width), height, dots: dots.join(""), places: Object.fromEntries(places) };
}

function round(number) {
  return Math.round(number * 10) / 10;
}
