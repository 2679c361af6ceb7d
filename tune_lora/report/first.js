"use strict";
// Runs before anything is shown, so that a page in the chosen colours never flashes in the others.
(function () {
  const root = document.documentElement;
  root.classList.add("js");
  try {
    const theme = localStorage.getItem("tune-lora-theme");
    if (theme === "dark" || theme === "light") root.dataset.theme = theme;
  } catch (blocked) { // a browser may refuse to store anything for files
    delete root.dataset.theme;
  }
})();
