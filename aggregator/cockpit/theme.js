// Runs before the first paint, so it is no module: which of the two schemes the page begins with.
{
  const WALL_PX = 1600; // who puts the page on a wall has it wide, and dark rooms or glare
  const wanted = localStorage.getItem("millgate.theme");
  const bright = innerWidth < WALL_PX && matchMedia("(prefers-color-scheme: light)").matches;
  document.documentElement.dataset.theme =
    wanted === "dark" || wanted === "light" ? wanted : bright ? "light" : "dark";
}
