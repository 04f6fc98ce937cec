// Counts what goes wrong, from before anything else runs: a page that failed
// says so instead of staying silently empty.
(() => {
  const root = document.documentElement;
  root.dataset.errors = '0';
  const note = (what) => {
    root.dataset.errors = String(Number(root.dataset.errors) + 1);
    root.dataset.lastError = String(what);
  };
  addEventListener('error', (event) => note(event.message));
  addEventListener('unhandledrejection', (event) => note(event.reason));
  document.addEventListener('securitypolicyviolation', (event) =>
    note(`blocked: ${event.violatedDirective} ${event.blockedURI}`),
  );
})();
