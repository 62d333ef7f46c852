// One colour per region, the same on the map, in the table and in the plots.

/** Hues far apart for regions that are near each other. The names are variables of the style sheet. */
const HUES = { WNAM: 1, ENAM: 2, WEUR: 3, EEUR: 4, APAC: 5, OC: 6, SAM: 7, AFR: 8, ME: 1 };
const HUE_COUNT = 8;

function hueOf(region) {
  const sum = [...region].reduce((sum, letter) => sum + letter.charCodeAt(0), 0);
  return HUES[region] ?? 1 + (sum % HUE_COUNT);
}

/** For style properties. */
export const colourOf = (region) => `var(--hue-${hueOf(region)})`;

/** A variable of the style sheet as it is now, for canvases, which know no variables. */
export const valueOf = (variable) => getComputedStyle(document.documentElement).getPropertyValue(variable).trim();

export const colourValueOf = (region) => valueOf(`--hue-${hueOf(region)}`);
