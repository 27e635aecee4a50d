"""The TeX macros that the book may use: MathJax (base and AMS), Colab, JupyterLab and GitHub all draw them.

Before you add one, look at it in the book and on GitHub: an undefined macro shows red there, and nothing warns.
"""

GREEK = """
alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi pi rho sigma
tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega ell
partial nabla infty
"""

OPERATORS = """
sum prod int iint oint lim liminf limsup max min sup inf arg det dim exp ln log Pr sin cos tan sinh cosh
tanh arcsin arccos arctan operatorname limits nolimits
"""

RELATIONS = """
le leq ge geq ne neq equiv approx sim simeq propto ll gg in notin ni subset subseteq cup cap setminus
emptyset mid to gets mapsto rightarrow leftarrow Rightarrow Leftarrow iff implies longrightarrow
Longrightarrow leftrightarrow Leftrightarrow xrightarrow forall exists parallel perp colon
"""

SIGNS = """
cdot cdots ldots dots vdots ddots times div pm mp circ ast star oplus odot otimes prime top bot dagger
langle rangle lVert rVert lvert rvert Vert vert lfloor rfloor lceil rceil lbrace rbrace backslash
"""

LAYOUT = """
frac dfrac tfrac sqrt binom underbrace overbrace underline overline underset overset stackrel substack
left right middle big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr bigm Bigm begin end quad
qquad hspace tag notag displaystyle textstyle phantom boxed
"""

LETTERS = """
mathbf mathrm mathbb mathcal mathit mathsf boldsymbol text textbf textit hat widehat bar tilde widetilde
vec dot ddot
"""

MACROS = set((GREEK + OPERATORS + RELATIONS + SIGNS + LAYOUT + LETTERS).split())
