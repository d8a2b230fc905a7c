// Applies a chosen light or dark theme before the first paint, so that nothing flashes.
try {
  const theme = JSON.parse(localStorage.getItem('chatbot.theme'));
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
} catch {
  // A browser that forbids storage follows the system.
}
