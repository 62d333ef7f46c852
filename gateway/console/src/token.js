// Asking for the cluster's token, once something is refused without.

import { onTokenNeeded, token } from "./api.js";
import { $, say } from "./dom.js";

const dialog = $("token-dialog");
const field = $("token");
const button = $("token-button");
/** Those who wait for a token. They are told whether there is one to try. */
let waiting = [];
/** Whoever closes the dialog is not asked again, but has a button. */
let declined = false;

onTokenNeeded((used) => {
  // Another request was refused earlier, and its token has been given in the meantime.
  if (used !== token.get()) return Promise.resolve(true);
  if (declined) return Promise.resolve(false);
  // Those who are refused together ask once: the first of them knows with which token.
  if (!dialog.open) {
    say($("token-notice"), used ? "The cluster does not know this token." : "");
    token.forget();
    open();
  }
  return new Promise((given) => waiting.push(given));
});

$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token.set(field.value.trim());
  declined = false;
  close();
});
$("token-forget").addEventListener("click", () => {
  token.forget();
  declined = true;
  close();
});
dialog.addEventListener("cancel", (event) => {
  event.preventDefault();
  declined = true;
  close();
});
button.addEventListener("click", open);

function open() {
  if (dialog.open) return;
  field.value = "";
  dialog.showModal();
  field.focus();
}

function close() {
  dialog.close();
  const has = token.get() != null;
  button.hidden = !has && !declined;
  for (const given of waiting.splice(0)) given(has);
}

button.hidden = token.get() == null;
